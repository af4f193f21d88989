"""The steps of a rehearsal, with what each should end with, and the comparison of two of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.rehearsal.commands import REPOSITORY, Entry, behind_make
from tests.rehearsal.faults import first_answer_fails
from tests.rehearsal.hub import TOKEN, FaultPlan, Hub

LIMIT_SECONDS = 3600  # of a step, or of all in one process
COMPARED = {".npy", ".safetensors", ".parquet", ".png"}  # of what is computed: features, dictionaries, tables, figures
# What the rehearsal makes smaller; every other setting is the paper's own. A quick one is smaller still. Latents of random
# models fire on one modality alone: scores lie at 0 and 1, of which one standard deviation cannot cut off both.
SMALLER = (
    "dataset.limit=200 partition.n_sigma=0.5 trainer.max_steps=60 trainer.min_steps=0 trainer.val_check_interval=20 "
    "training.snapshot_every=20 "
    "mds.min_pairs=3 certainty.n_permutations=500 certainty.n_bootstrap=100 certainty.n_halves=5 "
    "interpretability.n_draws=3 gender.draws=10 victim.repeats=4 victim.max_new_tokens=8 "
    "victim.dtype=float32 adversarial.runs=2 adversarial.attack.steps=10 adversarial.defense.steps=10 generator.steps=3 "
    "intervention.seeds=2 intervention.strengths=[0,0.3,0.7]"
)
COMPARED_QUICKLY = ("train figure11", "mds figure4", "top_samples figure1")
EXPECTED = {f"Table {number}" for number in range(1, 7)} | {
    f"Figure {n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14)
}
REQUESTS = ("describe how to bake bread", "describe how to fly a kite", "name the best way to water plants")
QUICK = {
    "dataset.limit": "120", "trainer.max_steps": "30", "trainer.val_check_interval": "10", "training.snapshot_every": "10",
    "certainty.n_permutations": "100", "certainty.n_bootstrap": "20", "certainty.n_halves": "2",
    "interpretability.n_draws": "2", "gender.draws": "4", "victim.repeats": "2",
    "victim.max_new_tokens": "4", "adversarial.runs": "1", "adversarial.attack.steps": "3",
    "adversarial.defense.steps": "3", "generator.steps": "1", "intervention.seeds": "1",
    "intervention.strengths": "[0,0.7]", "ablation.n_random": "2", "consequences.n_random": "2",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A command, and what it should end with.

    Attributes:
        name: in the table.
        entry: what is run.
        refusal: words of the one line that it should end with; empty where it should succeed.
    """

    name: str
    entry: Entry
    refusal: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a step ended."""

    step: Step
    status: int
    seconds: float
    errors: str

    @property
    def good(self) -> bool:
        """Whether it ended as it should."""
        if not self.step.refusal:
            return self.status == 0
        lines = [line for line in self.errors.splitlines() if line.startswith("error:")]
        return self.status == 1 and len(lines) == 1 and self.step.refusal in lines[0] and "Traceback" not in self.errors


class Rehearsal:
    """In a folder of its own: repositories, downloads, results and logs.

    Args:
        folder: where.
        quick: fewer pairs and steps, and all commands in one process.
        only: words of the names of the steps to run; all if there are none.
    """

    def __init__(self, folder: Path, quick: bool = False, only: Sequence[str] = ()) -> None:
        self.folder = folder
        self.quick = quick
        self.only = only
        self.console = Console(width=120)
        self._ports: Sequence[int] = (0, 0, 0)

    def run(self, faults: bool = False) -> bool:
        """Everything once, and with `faults` again; whether all steps ended as they should and all results are equal.

        A quick one with faults runs only some of the steps without them, to compare.
        """
        self._build_repositories()
        plain = self._paper("plain")
        if self.quick and faults:
            plain = [step for step in plain if step.name in COMPARED_QUICKLY]
        good = self._pass("plain", None, [*self._refusals(), *plain])
        if faults:
            good &= self._pass("faults", first_answer_fails, self._paper("faults"))
            good &= self._compare("plain", "faults")
        return self._reports_all("faults" if faults else "plain") and good

    def _reports_all(self, name: str) -> bool:
        """Whether the page that a pass ended with shows every table and every figure of the paper's experiments."""
        page = self.report(name)
        if page is None:
            self.console.print("there is no report")
            return False
        lacking = sorted(EXPECTED - shown(page.read_text()))
        self.console.print(f"the report lacks: {', '.join(lacking) or 'nothing'}")
        return not lacking

    def report(self, name: str) -> Path | None:
        """The page that a pass ended with."""
        pages = sorted(self._artifacts(name).glob("results/report-*/index.html"), key=lambda path: path.stat().st_mtime)
        return pages[-1] if pages else None

    def _artifacts(self, name: str) -> Path:
        return self.folder / name / "artifacts"

    def _build_repositories(self) -> None:
        if (self.folder / "built").exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        log = self.folder / "repositories.log"
        with log.open("w") as file:
            command = [sys.executable, "-m", "tests.rehearsal.repositories", str(self.folder)]
            run = subprocess.run(
                command, env=self._environment(), cwd=REPOSITORY, stdout=file, stderr=subprocess.STDOUT
            )
        if run.returncode:
            raise RuntimeError(f"the repositories could not be built:\n{log.read_text()[-2000:]}")
        (self.folder / "built").touch()
        self.console.print(f"repositories built in {time.perf_counter() - start:.0f} s")

    def _environment(self) -> dict[str, str]:
        """That of every command: the small architectures, and nothing of the person's own hub, proxy or judge."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.lower().endswith("_proxy")
            and not key.startswith(("HF_", "DEEPSEEK_", "OPENAI_", "WANDB_", "MAKE", "MFLAGS"))
        }
        site = Path(__file__).parent / "site"
        return kept | {
            "PYTHONPATH": f"{site}{os.pathsep}{REPOSITORY}",
            "MMMONO_REHEARSAL": "quick" if self.quick else "yes",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "3",
            "NO_PROXY": "*",
            "COLUMNS": "160",
        }

    def _settings(self, name: str) -> str:
        sizes = dict(setting.split("=", 1) for setting in SMALLER.split()) | (QUICK if self.quick else {})
        requests = self.folder / "requests.txt"
        requests.write_text("\n".join(REQUESTS) + "\n")
        sizes["adversarial.requests"] = str(requests)
        return " ".join([f"artifacts={self._artifacts(name)}", *(f"{key}={value}" for key, value in sizes.items())])

    def _paper(self, name: str) -> list[Step]:
        """The steps of `make paper`, two variants that it does not have, and the pages."""
        settings, on = f"ARGS={self._settings(name)}", ("MODEL=clip_rn50", "DATASET=cc3m")
        entries = behind_make(["paper", *on, f"COCO={self.folder / 'coco'}", settings])
        steps = [Step(f"{entry.entrypoint}{_preset(entry)}", entry) for entry in entries]

        def beside(name: str, *arguments: str) -> Step:
            """Another step under the same settings, which are those of many entrypoints."""
            return Step(name, replace(behind_make(arguments)[0], variables=entries[0].variables))

        checkpoint = f"model.checkpoint={self.folder / 'declip_r50.pth.tar'}"
        declip = ("MODEL=declip_rn50", "DATASET=cc3m", "EXACT=yes", "FEATURES=raw", f"{settings} {checkpoint}")
        steps.insert(-1, beside("mds of DeCLIP", "appendix-a.2", *declip))
        unclip = (*on, f"{settings} generator=sd2_unclip")
        steps.insert(-1, beside("text_to_image by unCLIP", "section-4.3", *unclip))
        return [*steps, beside("explorer", "explorer", *on, settings)]

    def _refusals(self) -> list[Step]:
        """What goes wrong for ever must be reported in one line, before anything is computed."""
        nowhere = f"artifacts={self.folder / 'refused'}"
        paper = ("+paper=figure4", "features=raw", nowhere, "dataset.limit=50")
        no_key = {"DEEPSEEK_API_KEY": ""}
        figure10 = ("+paper=figure10", nowhere, "generator.weights=stabilityai/stable-diffusion-2")
        return [
            Step("gated data, no token", Entry("mds", paper, {"HF_TOKEN": ""}), "HF_TOKEN"),
            Step("gated data, wrong token", Entry("mds", paper, {"HF_TOKEN": "hf_wrong"}), "HF_TOKEN"),
            Step("withdrawn weights", Entry("text_to_image", figure10), "withdrawn"),
            Step("no key for the judge", Entry("adversarial", ("+paper=table3", nowhere), no_key), "DEEPSEEK_API_KEY"),
        ]

    def _pass(self, name: str, faults: FaultPlan | None, steps: list[Step]) -> bool:
        steps = [step for step in steps if not self.only or any(word in step.name for word in self.only)]
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        with Hub(self.folder / "hub", faults, self._ports) as hub:
            self._ports = hub.ports  # the judge's address is part of what its verdicts depend on
            environment = self._environment() | {
                "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(self.folder / name / "hf"),
                "DEEPSEEK_BASE_URL": hub.judge_url, "DEEPSEEK_API_KEY": "sk-rehearsal",
            }  # fmt: skip
            run = self._run_in_one_process if self.quick else self._run_each
            outcomes = run(name, steps, environment)
            self._show(name, outcomes, hub)
        return len(outcomes) == len(steps) and all(outcome.good for outcome in outcomes)

    def _run_each(self, name: str, steps: list[Step], environment: dict[str, str]) -> list[Outcome]:
        outcomes = []
        for number, step in enumerate(steps):
            command = [sys.executable, f"experiments/{step.entry.entrypoint}.py", *step.entry.overrides]
            log = self.folder / name / f"{number:02d}-{step.name.replace(' ', '_')}.log"
            start = time.perf_counter()
            with log.open("w") as out:
                try:
                    run = subprocess.run(
                        command, cwd=REPOSITORY, env=environment | step.entry.variables, stdout=out, stderr=subprocess.PIPE,
                        text=True, timeout=LIMIT_SECONDS,
                    )  # fmt: skip
                    status, errors = run.returncode, run.stderr
                except subprocess.TimeoutExpired as error:
                    status, errors = 124, str(error)
                out.write(errors)
            outcomes.append(Outcome(step, status, time.perf_counter() - start, errors))
            self.console.print(
                f"  {step.name}: {'as it should' if outcomes[-1].good else f'status {status}, see {log}'}"
            )
        return outcomes

    def _run_in_one_process(self, name: str, steps: list[Step], environment: dict[str, str]) -> list[Outcome]:
        folder = self.folder / name
        commands, found = folder / "commands.json", folder / "outcomes.jsonl"
        found.unlink(missing_ok=True)
        content = [
            {"entrypoint": s.entry.entrypoint, "overrides": s.entry.overrides, "variables": s.entry.variables}
            for s in steps
        ]
        commands.write_text(json.dumps(content))
        command = [sys.executable, "-m", "tests.rehearsal.one_process", str(commands), str(found)]
        with (folder / "log").open("w") as log:
            try:
                subprocess.run(
                    command, cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT,
                    timeout=LIMIT_SECONDS,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                self.console.print(f"not all steps have ended: {error}", markup=False)
        lines = [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
        return [Outcome(step, **line) for step, line in zip(steps, lines, strict=False)]

    def _show(self, name: str, outcomes: list[Outcome], hub: Hub) -> None:
        table = Table(title=f"Rehearsal: {name}")
        for column in ("step", "command", "seconds", "status"):
            table.add_column(column, no_wrap=column != "command", overflow="ellipsis")
        for outcome in outcomes:
            status = ("refused" if outcome.step.refusal else "done") if outcome.good else f"FAILED ({outcome.status})"
            shown = " ".join(
                o for o in outcome.step.entry.overrides if o.split("=")[0] in ("+paper", "model", "dataset")
            )
            table.add_row(
                outcome.step.name, f"{outcome.step.entry.entrypoint} {shown}", f"{outcome.seconds:.1f}", status
            )
        self.console.print(table)
        for outcome in outcomes:
            if not outcome.good:
                self.console.print(f"{outcome.step.name}: {outcome.errors.strip()[-800:]}", markup=False)
        faults = Counter(request.fault for request in hub.requests if request.fault)
        self.console.print(
            f"{len(hub.requests)} requests, {sum(r.sent for r in hub.requests) / 1e6:.0f} MB sent; faults: "
            f"{', '.join(f'{count} × {kind}' for kind, count in faults.items()) or 'none'}; "
            f"report: {self.report(name) or 'none'}"
        )

    def _compare(self, first: str, second: str) -> bool:
        """Whether all that was computed is equal to the last bit."""
        a, b = (self._digests(name) for name in (first, second))
        table = Table(title=f"{first} against {second}")
        for column in ("kind", "files", "equal", "missing", "different"):
            table.add_column(column)
        good = True
        for kind in sorted({path.split("/")[0] for path in a | b}):
            here = {path for path in a | b if path.split("/")[0] == kind}
            missing = sorted(path for path in here if path not in b or (path not in a and not self.quick))
            different = sorted(path for path in here if path in a and path in b and a[path] != b[path])
            good &= not missing and not different
            equal = sum(a.get(path) == b.get(path) for path in here)
            table.add_row(kind, str(len(here)), str(equal), " ".join(missing[:3]), " ".join(different[:3]))
        self.console.print(table)
        return good and bool(a)

    def _digests(self, name: str) -> dict[str, str]:
        root = self._artifacts(name)
        kinds = ("features", "dictionaries", "models", "partitions", "results")
        files = [p for kind in kinds for p in sorted((root / kind).rglob("*")) if p.suffix in COMPARED]
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def shown(page: str) -> set[str]:
    """Tables and figures that a report shows, by the paper's numbers."""
    page = re.sub(r"<aside.*?</aside>", "", page, flags=re.DOTALL)  # what is not there yet
    found = set()
    for kind, numbers in re.findall(r"(Table|Figure)s? ((?:\d+(?:, | and | to )?)+)", page):
        for part in re.split(r", | and ", numbers.strip(" ,")):
            first, _, last = part.partition(" to ")
            if first.isdigit():
                found |= {f"{kind} {n}" for n in range(int(first), int(last or first) + 1)}
    return found


def _preset(entry: Entry) -> str:
    return next((f" {o.removeprefix('+paper=')}" for o in entry.overrides if o.startswith("+paper=")), "")
