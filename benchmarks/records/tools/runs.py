"""The trainings that the page of records is about, and the command of each."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from alexnet_repro import Recipe

Record = Mapping[str, Any]
Records = Mapping[str, Record]

FOLDER = "benchmarks/records"


class Run(NamedTuple):
    """A training, by what differs among them; the defaults are the document's.

    `precision` is that of the command; a record in another is as good. `options` don't make it another training.
    """

    recipe: str = "documented"
    loss: str = "normalised_sigmoid"
    batch_size: int = 32
    epochs: int = 5
    seed: int = 0
    precision: str = "mixed_bfloat16"
    options: tuple[str, ...] = ()

    def command(self, name: str) -> str:
        """Return the command that makes a record of that name."""
        usual = Run() if self.recipe == "documented" else QUICK
        words = [f"--recipe={self.recipe}", f"--precision={self.precision}", f"--seed={self.seed}"]
        changed = [each for each in ("loss", "batch_size", "epochs") if getattr(self, each) != getattr(usual, each)]
        words += [f"--{each.replace('_', '-')}={getattr(self, each)}" for each in changed]
        words += [*self.options, f"--weights={name}.weights.h5", f"--record={FOLDER}/{name}"]
        return f"python -m alexnet_repro train {' '.join(words)}"


QUICK = Run(recipe="quick", loss="softmax", batch_size=Recipe.quick().batch_size, epochs=1)
QUICK_PRECISIONS = {"bfloat16": "mixed_bfloat16", "float32": "float32"}
GPU_PRECISION = "tf32"  # the document's own code today on a GPU that has it: float32, products in TensorFloat-32
OPTIONS = ("--evaluate-every=100", "--nondeterministic")
ON_GPU = {
    f"documented_{GPU_PRECISION}_seed{seed}": Run(seed=seed, precision=GPU_PRECISION, options=OPTIONS)
    for seed in range(5)
}
RUNS = {
    **ON_GPU,
    "documented": Run(),
    "documented_softmax": Run(loss="softmax"),
    **{f"epoch_{loss}_128": Run(loss=loss, batch_size=128, epochs=1) for loss in ("normalised_sigmoid", "softmax")},
    **{
        f"quick_{short}_seed{seed}": QUICK._replace(seed=seed, precision=precision)
        for short, precision in QUICK_PRECISIONS.items()
        for seed in range(5)
    },
}


def check(records: Records) -> None:
    """Raise a ValueError that names a record of generated images, or of another training than its name says."""
    for name, record in records.items():
        wrong = [] if record["data"] == "Fashion-MNIST" else [f"{record['data']} images"]
        if name in RUNS:
            wrong += [] if after_epochs(record) else ["no accuracy after any epoch (--no-evaluate)"]
            found = {**record["recipe"], "recipe": record["recipe"]["name"], "seed": record["seed"]}
            fields = ("recipe", "seed", "loss", "batch_size", "epochs")
            wrong += [f"{field} {found[field]}" for field in fields if found[field] != getattr(RUNS[name], field)]
        if wrong:
            raise ValueError(f"{FOLDER}/{name} is of another training than its name says: {', '.join(wrong)}")


def earlier(record: Record) -> str:
    """Return what a record of `quick` was trained by, where the recipe has changed since; else an empty text."""
    recipe = record["recipe"]
    if recipe["name"] != "quick" or recipe == Recipe.quick().as_data():
        return ""
    return f"{Recipe(**recipe).num_updates} updates of {recipe['batch_size']}"


def same_but_seed(records: Records, name: str) -> list[Record]:
    """Return the record of that name and those of the same training with other seeds; none if it isn't there."""
    if name not in records:
        return []
    first = records[name]
    alike = [each for each in records.values() if all(each[field] == first[field] for field in ("recipe", "precision"))]
    others = {each["seed"]: each for each in alike if each["seed"] != first["seed"]}
    return [first, *(others[seed] for seed in sorted(others))]


def documented_run(records: Records) -> str:
    """Return the name of the run that the document is compared with: one on a GPU, where there is any."""
    return next((name for name in ON_GPU if name in records), "documented")


def any_of(records: Records) -> Record | None:
    """Return the first record there is; None if there is none."""
    return next((records[name] for name in RUNS if name in records), None)


def evaluated(record: Record) -> Record:
    """Return the evaluation of the weights that the document evaluates: those saved last."""
    return record["saved"] or record["final"]


def after_epochs(record: Record) -> list[Record]:
    """Return the evaluations at the ends of epochs, of all that were made while training."""
    recipe = record["recipe"]
    draws = (recipe["preliminary_draws"] + (n + 1) * recipe["draws_per_epoch"] for n in range(recipe["epochs"]))
    ends = {each * (recipe["draw_size"] // recipe["batch_size"]) for each in draws}
    return [each for each in record["evaluations"] if each["updates"] in ends]
