"""What `results.json` holds, typed: what reading checks, and what its JSON Schema is made from.

A field that isn't known is allowed everywhere: later versions add some.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from alexnet_repro.verify.benchmark.layer_timing import LayerTiming
from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.checks.overhead_cell import OverheadCell
from alexnet_repro.verify.doctor.inventory import DeviceInventory
from alexnet_repro.verify.finding import GROUPS, LEVELS, Finding, Status
from alexnet_repro.verify.verdict import Planned

RESULTS_SCHEMA = 4
READ_SCHEMAS = (3, RESULTS_SCHEMA)  # 3 knows neither the run's id nor the node
# Of a run, what each file of this version has; those of schema 3, and of records made by hand, are read without.
OF_EVERY_RUN = ("id", "node", "host", "pid", "started", "version", "python", "command", "level")


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class RunFields(_Open):
    """Who ran what, where and when."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"required": list(OF_EVERY_RUN)})

    id: str = Field("", description="32 hexadecimal digits that no other run has", pattern="^([0-9a-f]{32})?$")
    node: str = Field("", description="the machine's name in its fleet")
    host: str = Field("", description="the host's name, which a pod has of its own")
    pid: int = 0
    started: str = Field("", description="ISO 8601, in UTC", json_schema_extra={"format": "date-time"})
    seconds: float = Field(0.0, description="since then, at the last write", ge=0)
    version: str = Field("", description="of alexnet-repro")
    revision: str = Field("", description="of its checkout; empty: none")
    python: str = ""
    command: str = ""
    level: Annotated[str, WithJsonSchema({"enum": list(LEVELS)})] = "standard"
    fail_inconclusive: bool = Field(False, description="whether an inconclusive check fails the run")
    hashed: bool = Field(False, description="whether serials are hashed")
    ended: str = Field("", description="why it ended early")
    library_output: str = Field("", description="what libraries printed at the start")
    hosts: list[str] = Field([], description="of several workers' merged file")
    workers: list[str] = Field([], description="the ids of the runs that a merged file is made of")


class Firmware(_Open):
    """Of the machine; a GPU's is in its inventory."""

    bios: str | None = None
    microcode: str | None = None


class MachineFields(_Open):
    """The machine, its software and its devices; empty until the doctor has looked.

    In a merged file it has `machines`, their names, and by each name what is here for one.
    """

    id: str | None = Field(None, description="its serial, or else its machine-id; null: not known")
    id_source: Annotated[str, WithJsonSchema({"enum": ["serial", "machine-id", ""]})] = Field(
        "", description="what `id` is; only ids of one source are comparable"
    )
    machine_id: str | None = Field(
        None, description="that of Linux, which everybody may read; in a container the image's"
    )
    product: str | None = None
    firmware: Firmware | None = None
    inventory: dict[str, DeviceInventory] = Field({}, description="by device, as gpu:0")
    devices: list[str] = Field([], description="those that were verified")
    gpus: list[str] = Field([], description="the product names of those that the backend sees")
    gpu_uuids: list[str] = Field([], description="of those that the driver reports")
    system: str = ""
    container: str | None = None
    cpu: str = ""
    cpu_quota: float | None = None
    threads: dict[str, Any] = {}
    driver: str | None = None
    packages: dict[str, str] = {}
    settings: dict[str, str] = {}
    machines: list[str] = Field([], description="of a merged file, the machines' names")


class ResultsFile(BaseModel):
    """One run: what was planned, found and timed on one machine."""

    complete: bool = Field(description="whether the run came to its end")
    verdict: Status
    verdicts: dict[str, Status] = Field({}, description="by group")
    run: RunFields
    plan: list[Planned]
    machine: MachineFields
    findings: dict[str, list[Finding]] = Field(description=f"by group: {', '.join(GROUPS)}")
    timings: list[Timing]
    calibrations: list[Calibration] = []
    layers: list[LayerTiming] = []
    overheads: list[OverheadCell] = []


class _Published(ResultsFile):
    """A run of `pytest benchmarks`, as `results.json` has it. Later versions add fields."""

    model_config = ConfigDict(title="results.json of alexnet-repro")

    format: Literal[4] = Field(alias="schema", description="the format's version")


class WithoutTitles(GenerateJsonSchema):
    """A schema whose fields have no titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Return False: titles repeat the fields' names."""
        return False


def results_schema() -> Mapping[str, Any]:
    """Return the JSON Schema, draft 2020-12, of the files that this version writes."""
    made = _Published.model_json_schema(schema_generator=WithoutTitles)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
