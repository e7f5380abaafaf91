"""Why there was no connection: what is wrong, and the variable that fixes it, in one line without a password."""

import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import requests
import urllib3

from alexnet_repro.data import download
from alexnet_repro.data.connection import why_not
from alexnet_repro.data.download import DownloadError

URL = "https://files.invalid/x"
MALFORMED = (
    "{0} isn't a proxy's address (it isn't shown, for it may hold a password): export {0}=http://HOST:PORT, or "
    "http://USER:PASSWORD@HOST:PORT with % codes for special characters, as %23 for #"
)


class Refusing(BaseHTTPRequestHandler):
    """A proxy that lets nothing through: its answer is what the path or the host begins with."""

    def do_CONNECT(self):
        self.send_response(int(self.path.partition(".")[0]))
        self.end_headers()

    def do_GET(self):
        self.send_response(int(self.path.rpartition("/")[2]))
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def proxy():
    """The address of a proxy that refuses."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def reason(url):
    """Return why an address can't be fetched."""
    with pytest.raises(DownloadError) as caught:
        download._request(url)
    return str(caught.value)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("status", "user", "means"),
    [
        ("407", "", "it wants a user and a password: export {}=http://USER:PASSWORD@HOST:PORT, with % codes for"),
        ("407", "anna:secret@", "it doesn't take the user and password in {}; correct them, with % codes for special"),
        ("403", "anna:secret@", "have it let 403.invalid through, or add 403.invalid to no_proxy where none is needed"),
        ("502", "", "have it let 502.invalid through, or add 502.invalid to no_proxy where none is needed"),
    ],
    ids=lambda value: f"text={value[:6]}",
)
def test_refused_by_the_proxy(proxy, monkeypatch, variable, status, user, means):  # noqa: PLR0917  # pytest names them
    """The proxy's name, the variable that it is from, its answer, and what that takes."""
    monkeypatch.setenv(variable, f"http://{user}{proxy}")
    said = reason(f"https://{status}.invalid/x")
    assert said.startswith(f"the proxy {proxy} ({variable}) answered {status} ")
    assert means.format(variable) in said
    assert "secret" not in said


def test_refused_without_tls(proxy, monkeypatch):
    """407 is the proxy's for an address without TLS, too, which gets the request as a server would."""
    monkeypatch.setenv("http_proxy", f"http://{proxy}")
    assert reason("http://files.invalid/407").startswith(f"the proxy {proxy} (http_proxy) answered 407 ")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "the proxy 127.0.0.1:9 ({}) can't be reached: Connection refused; correct {}, or unset it"),
        ("http://anna:secret@127.0.0.1:9", "the proxy 127.0.0.1:9 ({}) can't be reached: Connection refused; correct"),
        ("http://anna:secret@proxy.invalid:9", "the proxy proxy.invalid:9 ({}) can't be reached: "),
    ],
    ids=lambda value: f"text={value[:17]}",
)
def test_no_proxy_there(monkeypatch, address, said):
    """Where no proxy answers, the line names it, the system's reason and the variable to correct."""
    monkeypatch.setenv("https_proxy", address)
    assert reason(URL).startswith(said.format("https_proxy", "https_proxy"))


@pytest.mark.parametrize(
    "address",
    [
        "http://anna:sec#ret@h:1",
        "http://anna:sec/ret@h:1",
        "http://anna:sec€ret@h:1",
        "http://anna:secret@:80",
        "http://anna:secret@h:port",
        "http://anna:secret@h:99999",
        "ftp://anna:secret@h:1",
        "http://[::1",
        "http://.h:1",
        "//",
        ":",
    ],
    ids=lambda value: f"address={value}",
)
def test_malformed_address(monkeypatch, address):
    """Of what isn't a proxy's address no part is shown, since any may be of a password."""
    monkeypatch.setenv("ALL_PROXY", address)
    assert reason(URL) == MALFORMED.format("ALL_PROXY")


def test_socks_needs_a_package(monkeypatch):
    """Without PySocks, a SOCKS proxy's line says what to install."""
    monkeypatch.setenv("all_proxy", "socks5h://anna:secret@gate:1080")
    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", _missing)
    assert reason(URL) == "the proxy gate:1080 (all_proxy) speaks SOCKS, which needs a package: pip install pysocks"


def _missing(*_, **__):
    raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "can't be read"), ("", "holds no certificate"), ("not one", "holds no certificate")],
    ids=lambda value: f"text={value}",
)
def test_bad_bundle(proxy, monkeypatch, tmp_path, variable, content, said):  # noqa: PLR0917  # pytest names them
    """A bundle of certificates that isn't there, is empty or is something else is named, with its variable."""
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(variable, str(path))
    assert reason(f"https://{proxy}/x") == f"{variable}={path} {said}: name a file of certificates, or unset it"


def test_no_tls(proxy, monkeypatch):
    """A proxy whose address says https, but who speaks http, isn't taken for a certificate that isn't trusted."""
    monkeypatch.setenv("https_proxy", f"https://{proxy}")
    assert reason(URL).startswith(f"the proxy {proxy} (https_proxy) doesn't speak TLS as it should: ")
    assert reason(URL).endswith("; the address of most proxies begins with http://")


@pytest.mark.parametrize(
    ("code", "environment", "said"),
    [
        (18, {}, ": untrusted; where a proxy signs with a certificate of its own: export REQUESTS_CA_BUNDLE=FILE, "),
        (18, {"SSL_CERT_FILE": "/c.pem"}, "SSL_CERT_FILE isn't read for it: export REQUESTS_CA_BUNDLE=\"$SSL_CERT_"),
        (18, {"CURL_CA_BUNDLE": "/c.pem"}, "; CURL_CA_BUNDLE=/c.pem doesn't hold the certificate that signed it: "),
        (10, {}, "the certificate of files.invalid has expired; is this machine's clock right? date"),
        (62, {}, "the certificate of files.invalid is another host's; is a sign-in or a proxy in between?"),
    ],
    ids=lambda value: f"is={str(value)[:24]}",
)
def test_untrusted_certificate(monkeypatch, code, environment, said):
    """Why a certificate isn't trusted, and the variable that names the right ones, or that the clock is wrong."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "untrusted"
    wrapped = urllib3.exceptions.MaxRetryError(None, URL, urllib3.exceptions.SSLError(error))
    assert said in why_not(requests.exceptions.SSLError(wrapped), URL)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (URL, "no connection to files.invalid: "),
        ("https://127.0.0.1:9/x", "no connection to 127.0.0.1: Connection refused; "),
    ],
    ids=lambda value: f"text={value[:20]}",
)
def test_no_connection(url, said):
    """Without a proxy the host is named, and the variable for one."""
    assert reason(url).startswith(said)
    assert reason(url).endswith("where a proxy is needed: export https_proxy=http://HOST:PORT")
