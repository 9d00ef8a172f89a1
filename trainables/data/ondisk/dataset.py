"""The base of the data sets on disk: a layout is recognised by looking, and everything else follows from it."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

from trainables.data.base import SPLITS, CheckResult, DataConfig, DataSet, LabelCount, Progress
from trainables.data.ondisk.config import OnDiskConfig
from trainables.data.ondisk.root import DataRoot
from trainables.data.ondisk.split import FileSplit, Finish, Raw
from trainables.errors import DataError, unknown

SHOWN_PROBLEMS = 20
"""How many damaged files :meth:`OnDisk.check` names."""


class Layout(Protocol):
    """Where one arrangement of the data set's files has everything."""

    @property
    def name(self) -> str:
        """What the arrangement is called."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """The labels it has, of those of the data set."""
        ...

    def names(self, split: str) -> Sequence[str]:
        """The samples of ``train``, ``val`` or ``test``, in order.

        Raises:
            DataError: a list is missing or damaged.
        """
        ...

    def files(self, sample: str) -> Sequence[str]:
        """The files of a sample, below the root, whether they exist or not."""
        ...

    def load(self, sample: str, labels: Sequence[str]) -> Raw:
        """The image (as ``image``) and ``labels``, as the files have them.

        Raises:
            DataError: a file is missing or damaged.
        """
        ...


class OnDisk(DataSet):
    """A data set found in a folder. A subclass gives what the class variables and the abstract methods ask for.

    Nothing is ever written into the folder.
    """

    decodes: ClassVar[bool] = True
    layout_help: ClassVar[str]
    """What the folder has to hold, in half a line."""
    source: ClassVar[str]
    """Where it is found."""
    version: ClassVar[int] = 1
    """Of what the labels mean. Raised by every change of the code that changes what a batch holds."""

    @classmethod
    @abstractmethod
    def find(cls, config: Any, root: DataRoot) -> Layout | None:
        """The layout the folder has; ``None`` where it has none that is known. Looks for a few names only.

        Raises:
            DataError: it has one, and a list of it is missing or damaged.
        """

    @classmethod
    @abstractmethod
    def published(cls, config: Any) -> dict[str, int]:
        """Samples by split, ``train``, ``val`` and ``test``, of the data set as published."""

    @classmethod
    @abstractmethod
    def finish(cls, config: Any) -> Finish:
        """What makes tensors of a sample's files."""

    @classmethod
    def also(cls, config: Any) -> tuple[str, ...]:
        """Labels that :meth:`finish` wants for every training sample, whatever labels are asked for."""
        return ()

    @classmethod
    def identity(cls, config: DataConfig) -> dict[str, Any]:
        """Everything but where it is kept."""
        fields = config.canonical()
        fields.pop("root", None)
        return fields

    @classmethod
    def needs(cls) -> tuple[str, str] | None:
        """Its folder."""
        return "a folder of yours: data.root=PATH", f"{cls._wanted()}; `mtl-study data check` looks through it"

    @classmethod
    def layout(cls, config: DataConfig) -> Layout | None:
        """The layout found in the folder, looked for once in a process; ``None`` where there is no folder.

        Raises:
            DataError: the folder is of no known layout, or a list in it is damaged.
        """
        own = _own(config)
        if own.root is None or not Path(own.root).is_dir():
            return None
        return _layout(cls.find, own, cls._wanted())

    @classmethod
    def fingerprint(cls, config: DataConfig) -> str:
        """Hex digest of the config, the layout, the splits, and the names and sizes of all their files.

        Contents are not read. Where there is no folder, it is of the config alone, so that a plan can be made before
        the data is there; the trials of that plan have keys of their own.
        """
        parts: dict[str, Any] = {"version": cls.version, "config": cls.identity(config)}
        if cls.layout(config) is not None:
            parts["files"] = _inventory(cls.find, _own(config), cls._wanted())
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @classmethod
    def sizes(cls, config: DataConfig) -> dict[str, int]:
        """Number of samples by split: listed in the folder, or published where there is none."""
        layout = cls.layout(config)
        return cls.published(config) if layout is None else {split: len(layout.names(split)) for split in SPLITS}

    @classmethod
    def prepare(cls, config: DataConfig, root: Path, *, workers: int = 1, progress: Progress | None = None) -> None:
        """Nothing is built; raises :class:`DataError` where the folder is not there or not of a known layout."""
        cls.required(config)

    @classmethod
    def required(cls, config: DataConfig) -> Layout:
        """The layout.

        Raises:
            DataError: ``data.root`` is not given, missing, or of no known layout; the message says what is wanted and
                where it is found.
        """
        own = _own(config)
        if own.root is None:
            raise DataError(f"data.root: data set '{own.name}' wants {cls._wanted()}")
        found = cls.layout(config)
        if found is None:
            raise DataError(f"data.root: there is no folder {own.root}; data set '{own.name}' wants {cls._wanted()}")
        return found

    @classmethod
    def _wanted(cls) -> str:
        return f"a folder with {cls.layout_help}, from {cls.source}"

    @classmethod
    def open(cls, config: DataConfig, root: Path, split: str) -> FileSplit:
        """Open a split.

        Raises:
            DataError: there is no such split, or the folder is not there.
        """
        own = _own(config)
        if split not in SPLITS:
            raise DataError(f"data set '{own.name}': {unknown('split', split, SPLITS)}")
        layout = cls.required(config)
        return FileSplit(layout.names(split), layout.labels, layout.load, cls.finish(own), own.on_bad, cls.also(own))

    @classmethod
    def check(cls, config: DataConfig, on_progress: Progress | None = None, *, workers: int = 1) -> CheckResult:
        """Decode every file of every split.

        Raises:
            DataError: the folder is not given, missing or of no known layout, or a list in it is damaged.
        """
        own, layout = _own(config), cls.required(config)
        expected, finish = cls.published(config), cls.finish(own)
        names = {split: tuple(layout.names(split)) for split in SPLITS}
        samples = [(split, sample) for split in SPLITS for sample in names[split]]
        readable: Counter[tuple[str, str]] = Counter()
        problems: dict[str, None] = {}
        step = 16 * workers
        with ThreadPoolExecutor(workers, thread_name_prefix="check") as pool:
            for start in range(0, len(samples), step):
                here = samples[start : start + step]
                looks = pool.map(lambda sample: _look(layout, finish, sample), [sample for _, sample in here])
                for (split, _), (labels, errors) in zip(here, looks, strict=True):
                    readable.update((split, label) for label in labels)
                    problems.update(dict.fromkeys(errors))
                if on_progress is not None:
                    on_progress(start + len(here), len(samples))
        counts = tuple(
            LabelCount(split, label, readable[split, label], len(names[split]), expected[split])
            for split in SPLITS
            for label in ("image", *cls.labels)
        )
        shown = tuple(list(problems)[:SHOWN_PROBLEMS])
        return CheckResult(own.name, str(own.root), layout.name, counts, shown, len(problems))


def _look(layout: Layout, finish: Finish, sample: str) -> tuple[list[str], list[str]]:
    """What of a sample can be read, the image included, and what is wrong with the rest."""

    def error(labels: Sequence[str]) -> str:
        try:
            finish(layout.load(sample, labels), labels, None)
        except DataError as caught:
            return str(caught)
        return ""

    if not (together := error(layout.labels)):
        return ["image", *layout.labels], []
    # An image that is damaged is reported by each of its labels; it is one problem.
    errors = {label: error([] if label == "image" else [label]) for label in ("image", *layout.labels)}
    wrong = list(dict.fromkeys(filter(None, errors.values()))) or [together]
    return [label for label, message in errors.items() if not message], wrong


def _own(config: DataConfig) -> OnDiskConfig:
    if not isinstance(config, OnDiskConfig):
        raise TypeError(f"an OnDiskConfig is wanted, got {type(config).__name__}")
    return config


_Find = Callable[[Any, DataRoot], Layout | None]


@lru_cache(maxsize=64)
def _layout(find: _Find, config: OnDiskConfig, wanted: str) -> Layout:
    found = find(config, DataRoot(Path(str(config.root)), config.name))
    if found is None:
        raise DataError(f"data.root: {config.root} has no layout of data set '{config.name}', which wants {wanted}")
    return found


@lru_cache(maxsize=64)
def _inventory(find: _Find, config: OnDiskConfig, wanted: str) -> str:
    """Digest of layout, splits, and names and sizes of the files."""
    layout = _layout(find, config, wanted)
    root = DataRoot(Path(str(config.root)), config.name)
    folders: dict[str, Mapping[str, int]] = {}
    digest = hashlib.sha256(layout.name.encode())
    for split in SPLITS:
        for sample in layout.names(split):
            digest.update(f"\n{split}/{sample}".encode())
            for file in layout.files(sample):
                folder, _, name = file.rpartition("/")
                if folder not in folders:
                    folders[folder] = root.files(folder or ".")
                digest.update(f"\t{file}\t{folders[folder].get(name, -1)}".encode())
    return digest.hexdigest()


def forget() -> None:
    """Look at the folders anew: for whoever changes files under a running process."""
    _layout.cache_clear()
    _inventory.cache_clear()
