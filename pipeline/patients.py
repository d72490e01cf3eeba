"""Which cases are of one patient, as far as their files tell: DICOM series do, by PatientID; NIfTI files do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.sources import CaseSource

_MOST_NAMED = 8


def note_on_patients(cases: Sequence[CaseSource], splits: Mapping[str, str]) -> str | None:
    """What to say where scans of one patient are in different splits (by case id); None where nothing tells of such."""
    of_patient: dict[str, list[str]] = {}
    for case in cases:
        patient = _patient_of(case)
        if patient:
            of_patient.setdefault(patient, []).append(case.case_id)
    spread = [ids for ids in of_patient.values() if len({splits[case_id] for case_id in ids}) > 1]
    if not spread:
        return None
    named = "; ".join(
        ", ".join(f"{case_id} ({splits[case_id]})" for case_id in sorted(ids)[:_MOST_NAMED])
        for ids in spread[:_MOST_NAMED]
    )
    return (
        f"cases with one DICOM PatientID are in different splits: {named}. If that is one patient, training sees "
        "who is tested; put them together with --split, or with a datalist"
    )


def _patient_of(case: CaseSource) -> str | None:
    if not case.image.is_dir():
        return None
    from pipeline.dicom import patient_id  # pydicom is of use to few cases

    return patient_id(case.image)
