"""`study report`: answers and truth into `study.json`, `answers.csv` and `report.html`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.files import replace_file, writing_to
from pipeline.study import design
from pipeline.study.answers import COLUMNS, ENDING, Answer, AnswerBook, Reader, csv_row
from pipeline.study.design import Answers, Study, order, read_record, read_study
from pipeline.study.reading import check_answers
from pipeline.versions import software
from training.report.cells import counted, number, percent
from training.study.definitions import DEFINITIONS, DEFINITIONS_VERSION
from training.study.machine import machine_observer
from training.study.page import page
from training.study.readers import (
    agreement,
    equivalence_with_chance,
    pooled_figures,
    reader_figures,
    reads,
)
from training.study.verdict import sentence

_NO_TRUTH = "the truth is made by `study create` and cannot be made again"
_RESUME = "Free the space or choose another --out, then run the same command again"
Given = Sequence[tuple[Reader, list[Answer]]]


def report(folder: Path, out: Path, *, margin: float, seed: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Write the report of a study to `out`; the document of `study.json`. InputError before any answer was given."""
    study = read_study(folder)
    truth = read_record(folder / design.TRUTH, Answers, _NO_TRUTH)
    _check_truth(folder / design.TRUTH, study, truth)
    anew = _written_before(out)
    given = _given(folder, study)
    if not any(not one.practice for _, answers in given for one in answers):
        raise InputError(f"{folder}: no trial is answered yet; `phantumor study serve {folder}` asks readers")
    document = _figures(study, truth, given, margin, seed)
    silent = [reader.name for reader, answers in given if all(one.practice for one in answers)]
    if silent:
        document["notes"].append(f"begun without an answer to a trial: {', '.join(silent)}")
    document |= {
        "machine": machine_observer(folder, study, truth),
        "leak_check": json.loads((folder / design.LEAKS).read_bytes()),
    }
    with writing_to(out, _RESUME):
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / "study.json", (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
        replace_file(out / "answers.csv", _csv(given, truth).encode())
        replace_file(out / "report.html", page(document).encode())
    log(f"wrote {out / 'report.html'}{' anew, over an earlier report' if anew else ''}")
    return document


def _written_before(out: Path) -> bool:
    """Whether `out` holds a report, which is replaced as other reports are; InputError when it holds a study."""
    try:
        document = json.loads((out / design.INFO).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise InputError(
            f"--out {out}: holds a {design.INFO} that is no report ({error}); give another folder"
        ) from error
    if not isinstance(document, dict) or "definitions_version" not in document:
        raise InputError(f"--out {out}: is a study, whose {design.INFO} would be replaced; give another folder")
    return True


def _given(folder: Path, study: Study) -> Given:
    """Readers with their answers; InputError for answers of another study."""
    book = AnswerBook(folder / design.ANSWERS)
    given = []
    for name in book.readers():
        reader, answers = book.read(name)
        check_answers(order(study, name), folder / design.ANSWERS / f"{name}{ENDING}", answers)
        given += [(reader, answers)] if reader is not None else []
    return given


def _check_truth(path: Path, study: Study, truth: Answers) -> None:
    trials = (*study.practice, *study.trials)
    unknown = (
        {trial.id for trial in trials} - set(truth.trials),
        {n for t in trials for n in t.cases} - set(truth.cases),
    )
    if any(unknown):
        raise InputError(f"{path}: is of another study, it does not know {min(set.union(*unknown))}; {_NO_TRUTH}")


def _figures(study: Study, truth: Answers, given: Given, margin: float, seed: int) -> dict[str, Any]:
    trials = [trial.id for trial in study.trials]
    right = {trial: str(truth.trials[trial]) for trial in trials}
    all_reads = [read for read in (reads(reader, answers) for reader, answers in given) if read.first]
    figures: dict[str, Any] = {
        "format_version": 1,
        "definitions_version": DEFINITIONS_VERSION,
        "study": _about(study, truth),
        "readers": [reader_figures(read, right, trials, seed) for read in all_reads],
        "pooled": pooled_figures(all_reads, right, trials, seed),
        "agreement": agreement(all_reads, trials),
        "equivalence": equivalence_with_chance(all_reads, right, trials, margin, seed),
    }
    return figures | {
        "sentence": sentence(figures),
        "balance": [dict(row) for row in truth.balance],
        "notes": [*truth.notes, *_notes(figures, study)],
        "definitions": DEFINITIONS,
        "context": {"dataset": truth.dataset, "dataset config digest": truth.config_digest, "real cases": truth.real}
        | {"seed": str(seed), **{f"version of {name}": version for name, version in software().items()}},
    }


def _about(study: Study, truth: Answers) -> dict[str, Any]:
    shown = [truth.cases[number] for trial in study.trials for number in trial.cases]
    record: dict[str, Any] = {"mode": study.mode, "organ": study.organ, "spacing_mm": study.spacing_mm}
    record |= {"trials": len(study.trials), "practice": len(study.practice)}
    for side in ("real", "synthetic"):
        own = [one for one in shown if one.truth == side]
        record |= {f"{side}_lesions": len(own), f"{side}_scans": len({one.source for one in own})}
    return record


def _notes(figures: Mapping[str, Any], study: Study) -> list[str]:
    """What keeps the figures from being read at face value."""
    notes, pooled = [], figures["pooled"]
    unfinished = [reader["reader"] for reader in figures["readers"] if reader["answered"] < reader["of"]]
    if unfinished:
        notes.append(f"not finished: {', '.join(unfinished)}; their answers so far are in every figure")
    if pooled["unsure"]:
        share = percent(pooled["unsure"] / pooled["answered"])
        notes.append(
            f"{pooled['unsure']} of {pooled['answered']} answers ({share}) were unsure: accuracy, sensitivity and "
            "specificity leave them out, which flatters readers who decide only when they see something; the "
            "equivalence test counts them as half right, the AUC uses them all"
        )
    if pooled["readers"] < 3:
        notes.append(
            f"{counted(pooled['readers'], 'reader')}: the figures are of who read here, not of readers at large"
        )
    return notes


def _csv(given: Given, truth: Answers) -> str:
    """Every answer with the truth beside it, as it was shown."""
    out = io.StringIO()
    writer = csv.DictWriter(out, (*COLUMNS, "truth"), lineterminator="\n")
    writer.writeheader()
    for reader, answers in given:
        writer.writerows(csv_row(reader, one) | {"truth": _right(one, truth)} for one in answers)
    return out.getvalue()


def _right(answer: Answer, truth: Answers) -> str:
    right = str(truth.trials[answer.trial])
    swapped = {"left": "right", "right": "left"}
    return swapped.get(right, right) if answer.repeat else right


def _of_machine(kind: str, one: Mapping[str, Any]) -> str:
    return f"{kind} AUC {number(one['auc'], 2)}" if one["auc"] is not None else f"{kind} {one['notes'][0]}"


def describe(document: Mapping[str, Any], out: Path) -> list[str]:
    """What was found, in a few lines."""
    pooled, test, machine = document["pooled"], document["equivalence"], document["machine"]["auc"]
    accuracy = pooled["accuracy"]
    auc = f", {pooled['auc'].get('note') or 'AUC ' + number(pooled['auc']['value'], 2)}" if pooled["auc"] else ""
    return [
        *(f"note: {note}" for note in document["notes"]),
        f"{counted(pooled['readers'], 'reader')}, {pooled['answered']} answers: accuracy {percent(accuracy['value'])} "
        f"({accuracy['count']} of {accuracy['n']}, {pooled['unsure']} unsure){auc}, d' {number(pooled['d_prime'], 2)}",
        f"equivalence within {100 * test['margin']:g} points: {'shown' if test['met'] else 'not shown'} "
        f"({test['n']} answers, {test['needed']} needed)",
        "machine observer: " + ", ".join(_of_machine(kind, one) for kind, one in machine.items()),
        document["sentence"],
        f"report: {out / 'report.html'}",
    ]
