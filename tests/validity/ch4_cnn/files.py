"""The files submitted with the notebooks, and faulty variants of the checkpoint.

A variant changes the folder of one submission in place before it is graded.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from autograder.course import Course
from autograder.release import solution_run

LAST = "mdc_session-4000"
VARIABLES = {"Variable": "W_conv", "Variable_1": "w2", "Variable_2": "b2", "Variable_3": "w0",
             "Variable_4": "b0"}  # fmt: skip
Tensors = dict[str, np.ndarray]


def files(course: Course, console: Console) -> Path:
    """The folder with the solution's checkpoint, from one full training."""
    return solution_run(course, "ch4-cnn", console)


def rewrite(change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    """A variant that rewrites the checkpoint with changed tensors."""

    def variant(folder: Path) -> None:
        import tensorflow as tf

        reader = tf.train.load_checkpoint(str(folder / LAST))
        tensors = change(
            {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
        )
        remove(folder)
        names = sorted(tensors)
        tf.raw_ops.SaveV2(
            prefix=str(folder / LAST),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[tensors[name] for name in names],
        )

    return variant


def remove(folder: Path) -> None:
    """Only the text file of the checkpoint is handed in."""
    for path in folder.glob(f"{LAST}.*"):
        path.unlink()


def missing(folder: Path) -> None:
    """No file of the checkpoint is handed in."""
    remove(folder)
    (folder / "checkpoint").unlink()


def renamed(names: dict[str, str]) -> Callable[[Tensors], Tensors]:
    """Rename variables together with Adam's slots for them."""

    def change(tensors: Tensors) -> Tensors:
        found = {}
        for name, value in tensors.items():
            head, slash, rest = name.partition("/")
            found[f"{names.get(head, head)}{slash}{rest}"] = value
        return found

    return change


def untrained(tensors: Tensors) -> Tensors:
    """The values that a Saver writes before the first step."""
    start = random_values(tensors)
    for name, value in start.items():
        if "/" in name or name in ("Variable_2", "Variable_3", "Variable_4"):
            start[name] = np.zeros_like(value)
    powers = {"beta1_power": 0.9, "beta2_power": 0.999}
    return {**start, **{name: np.array(value, np.float32) for name, value in powers.items()}}


def random_values(tensors: Tensors) -> Tensors:
    """Random values with the right names and shapes."""
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(0, 0.1, value.shape).astype(np.float32) if value.ndim else value
        for name, value in tensors.items()
    }


def narrower(tensors: Tensors) -> Tensors:
    """A network with half the hidden units."""
    cut = {"Variable_1": (slice(None), slice(512)), "Variable_2": (slice(512),),
           "Variable_3": (slice(512),)}  # fmt: skip
    return {
        name: value[cut[name.partition("/")[0]]] if name.partition("/")[0] in cut else value
        for name, value in tensors.items()
    }


def step_3900(tensors: Tensors) -> Tensors:
    """The state after fewer steps, under the name of step 4000."""
    return {**tensors, "beta2_power": np.array(0.999**3901, np.float32)}


def counted(tensors: Tensors) -> Tensors:
    """The tensors if the optimizer also counts its steps in a global step."""
    return {**tensors, "global_step": np.array(4000, np.int64)}


def halved(suffix: str) -> Callable[[Path], None]:
    """One of the files is truncated to half its size."""

    def variant(folder: Path) -> None:
        (path,) = folder.glob(f"{LAST}.{suffix}*")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return variant


def own_name(folder: Path) -> None:
    """The files are named after another step."""
    for path in folder.glob(f"{LAST}.*"):
        path.rename(folder / path.name.replace("4000", "3900"))


def moved(folder: Path) -> None:
    """The checkpoint is in a folder, as on the slide."""
    (folder / "tmp").mkdir()
    for path in folder.glob(f"{LAST}.*"):
        shutil.move(path, folder / "tmp" / path.name)


def downloaded_again(folder: Path) -> None:
    """The files have the names that a browser gives to repeated downloads."""
    (folder / "checkpoint").rename(folder / "checkpoint.txt")
    for path in folder.glob(f"{LAST}.*"):
        path.rename(folder / path.name.replace(LAST, f"{LAST} (1)"))


def keras_file(folder: Path) -> None:
    """A Keras 3 model, a zip archive with these members, replaces the Saver's files."""
    missing(folder)
    with zipfile.ZipFile(folder / f"{LAST}.keras", "w") as archive:
        for member in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(member, "{}")


def listing(folder: Path, steps: list[int], where: str = "") -> None:
    """Write the text file `checkpoint`."""
    lines = [f'model_checkpoint_path: "{where}mdc_session-{steps[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{where}mdc_session-{step}"' for step in steps]
    (folder / "checkpoint").write_text("\n".join(lines) + "\n")


def text_mode(folder: Path) -> None:
    """ORENIST.data was checked out in text mode: every \\n became \\r\\n."""
    path = folder / "ORENIST.data"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


VARIANTS: dict[str, Callable[[Path], None]] = {
    "missing": missing,
    "text file only": remove,
    "untrained": rewrite(untrained),
    "random values": rewrite(random_values),
    "NaN": rewrite(lambda tensors: {**tensors, "Variable": tensors["Variable"] * np.nan}),
    "named": rewrite(renamed(VARIABLES)),
    "Keras names": rewrite(renamed({"Variable_1": "hidden/kernel", "Variable_2": "hidden/bias"})),
    "narrower": rewrite(narrower),
    "data cut": halved("data"),
    "index cut": halved("index"),
    "filters only": rewrite(lambda tensors: {"Variable": tensors["Variable"]}),
    "without Adam": rewrite(lambda tensors: {name: tensors[name] for name in VARIABLES}),
    "extra": rewrite(lambda tensors: {**tensors, "extra": np.ones((7, 7), np.float32)}),
    "counted": rewrite(counted),
    "step 3900": rewrite(step_3900),
    "own name": own_name,
    "moved": moved,
    "downloaded again": downloaded_again,
    "Keras file": keras_file,
    "no text file": lambda folder: (folder / "checkpoint").unlink(),
    "slide's steps": lambda folder: listing(folder, [3996, 3997, 3998, 3999, 4000]),
    "every 400": lambda folder: listing(folder, [2400, 2800, 3200, 3600, 4000]),
    "begun again": lambda folder: listing(folder, [0]),
    "resumed": lambda folder: listing(folder, [3800, 3900, 4000]),
    "absolute paths": lambda folder: listing(
        folder, [3600, 3700, 3800, 3900, 4000], "/home/ada/ch4-cnn/"
    ),
    "text mode": text_mode,
}
