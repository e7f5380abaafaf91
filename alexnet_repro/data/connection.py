"""Why there was no connection, and the environment variable that fixes it: one line, without anybody's password."""

import os
import re
import ssl
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import requests
import urllib3

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # in requests' order
WITH_USER = "http://USER:PASSWORD@HOST:PORT"
ENCODED = "with % codes for special characters, as %23 for #"
# OpenSSL's codes of certificates that are trusted, and yet refused.
REFUSED = {
    9: "isn't valid yet; is this machine's clock right? date",
    10: "has expired; is this machine's clock right? date",
    62: "is another host's; is a sign-in or a proxy in between?",
    64: "is another host's; is a sign-in or a proxy in between?",
}


class Proxy(NamedTuple):
    """The proxy that requests takes for an address."""

    variable: str  # that names it
    address: str  # `host:port`; empty if it is malformed
    has_user: bool
    socks: bool

    @classmethod
    def of(cls, url: str) -> Self | None:
        """Return the proxy for an address; None without one."""
        value = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
        if not value:
            return None
        names = (f"{urlsplit(url).scheme}_proxy", "all_proxy")
        spellings = [spelling for name in names for spelling in (name, name.upper())]
        variable = next((name for name in spellings if os.environ.get(name) == value), names[0])
        try:
            parsed = urllib3.util.parse_url(value)
        except (urllib3.exceptions.LocationParseError, ValueError):
            return cls(variable, "", has_user=False, socks=False)
        return cls(variable, parsed.netloc or "", bool(parsed.auth), (parsed.scheme or "").startswith("socks"))

    def __str__(self) -> str:
        """Return its address, and the variable's name."""
        return f"the proxy {self.address} ({self.variable})"

    def refused(self, url: str, status: str) -> str:
        """Return what its answer, such as `407 Proxy Authentication Required`, means."""
        host = urlsplit(url).hostname
        if not status.startswith("407"):
            fix = f"have it let {host} through, or add {host} to no_proxy where none is needed"
        elif self.has_user:
            fix = f"it doesn't take the user and password in {self.variable}; correct them, {ENCODED}"
        else:
            fix = f"it wants a user and a password: export {self.variable}={WITH_USER}, {ENCODED}"
        return f"{self} answered {status}; {fix}"

    def malformed(self, error: ValueError) -> str:
        """Return what is wrong with its address, or is missing for it."""
        if self.socks and isinstance(error, requests.exceptions.InvalidSchema):
            return f"{self} speaks SOCKS, which needs a package: pip install pysocks"
        return (
            f"{self.variable} isn't a proxy's address (it isn't shown, for it may hold a password): "
            f"export {self.variable}=http://HOST:PORT, or {WITH_USER} {ENCODED}"
        )


def why_not(error: Exception, url: str) -> str:
    """Return why a request had no answer, from the exception of requests, in one line with the fix."""
    proxy, cause, host = Proxy.of(url), _innermost(error), str(urlsplit(url).hostname)
    if proxy and isinstance(error, ValueError):  # requests' InvalidURL and InvalidSchema are of that
        return proxy.malformed(error)
    if answer := re.search(r"Tunnel connection failed: (\d{3}.*)", str(cause)):
        return proxy.refused(url, answer[1].strip()) if proxy else answer[1]
    bundle = next((name for name in BUNDLES if os.environ.get(name)), "")
    if bundle and (
        not isinstance(error, requests.RequestException) or getattr(cause, "library", "") in {"X509", "PEM"}
    ):
        what = "holds no certificate" if isinstance(cause, ssl.SSLError) else "can't be read"
        return f"{bundle}={os.environ[bundle]} {what}: name a file of certificates, or unset it"
    at_proxy = isinstance(error, requests.exceptions.ProxyError)
    if isinstance(cause, ssl.SSLError):
        return _untrusted(cause, str(proxy) if at_proxy else host, bundle)
    said = getattr(cause, "strerror", None) or str(cause).rpartition(": ")[2] or type(cause).__name__
    if proxy:
        fix = f"correct {proxy.variable}, or unset it where none is needed"
        return f"{proxy} can't be reached: {said}; {fix}"
    scheme = urlsplit(url).scheme
    return f"no connection to {host}: {said}; where a proxy is needed: export {scheme}_proxy=http://HOST:PORT"


def _innermost(error: BaseException) -> BaseException:
    """Return the exception that libraries have wrapped, some as an argument, some as a cause."""
    while True:
        nested = (getattr(error, "reason", None), *error.args, error.__cause__)
        inner = next((each for each in nested if isinstance(each, BaseException)), None)
        if inner is None:
            return error
        error = inner


def _untrusted(error: ssl.SSLError, whose: str, bundle: str) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        said = (error.reason or str(error)).lower().replace("_", " ")
        return f"{whose} doesn't speak TLS as it should: {said}; the address of most proxies begins with http://"
    if refused := REFUSED.get(error.verify_code):
        return f"the certificate of {whose} {refused}"
    if bundle:
        fix = f"{bundle}={os.environ[bundle]} doesn't hold the certificate that signed it: add that"
    elif os.environ.get("SSL_CERT_FILE"):
        fix = 'SSL_CERT_FILE isn\'t read for it: export REQUESTS_CA_BUNDLE="$SSL_CERT_FILE"'
    else:
        fix = "where a proxy signs with a certificate of its own: export REQUESTS_CA_BUNDLE=FILE, which holds that"
    return f"certificate verify failed for {whose}: {error.verify_message}; {fix}"
