"""Free-text report passages and what they say, to measure the parser of reports by.

Written before the parser. The rules were fitted to TUNED; HELD_OUT (every second one) was only ever counted.
Conventions: simple cysts, focal fat and stones are no tumors and free nothing; a hedge without a lesion says nothing;
earlier sizes are not sizes; the largest number of a range counts; "several" has no number (0).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.annotations.findings import Attenuation, Finding, Margin


@dataclass(frozen=True)
class Variant:
    """A passage, the findings it states and the organs it calls free of tumor."""

    text: str
    findings: tuple[Finding, ...] = ()
    free: tuple[str, ...] = ()


def _f(
    organ: str,
    region: str | None = None,
    *diameters_mm: float,
    n: int = 1,
    look: Attenuation | None = None,
    margin: Margin | None = None,
) -> Finding:
    return Finding(organ, region, n, diameters_mm, look, margin)


VARIANTS: tuple[Variant, ...] = (
    Variant(
        "There is a 2.3 x 1.8 cm hypodense lesion in segment VII of the liver.",
        (_f("liver", "segment 7", 23, 18, look="hypo"),),
    ),
    Variant(
        "LIVER: Ill-defined low-attenuation mass, right hepatic lobe, measuring 45 mm by 38 mm.",
        (_f("liver", "right lobe", 45, 38, look="hypo", margin="ill-defined"),),
    ),
    Variant(
        "Pancreas: Hypoenhancing mass centered in the uncinate process, 3.1 cm. No ductal dilatation.",
        (_f("pancreas", "uncinate process", 31, look="hypo"),),
    ),
    Variant(
        "Within the pancreatic tail there is a hyperenhancing nodule which measures 14 mm in greatest dimension.",
        (_f("pancreas", "tail", 14, look="hyper"),),
    ),
    Variant(
        "The liver is unremarkable. The pancreas is normal. 4 cm exophytic mass arising from the lower pole of the "
        "left kidney.",
        (_f("kidney", "left lower pole", 40),),
        ("liver", "pancreas"),
    ),
    Variant(
        "Kidneys: Right upper pole enhancing renal mass 5.2 x 4.9 x 4.4 cm (previously 4.6 x 4.1 x 4.0 cm).",
        (_f("kidney", "right upper pole", 52, 49, 44, look="hyper"),),
    ),
    Variant(
        "Multiple hypodense liver metastases, the largest in segment 6 measuring 3.4 cm.",
        (_f("liver", "segment 6", 34, n=0, look="hypo"),),
    ),
    Variant(
        "Innumerable hepatic lesions are seen in both lobes, up to 27 mm in size.",
        (_f("liver", None, 27, n=0),),
    ),
    Variant(
        "Two lesions in the liver, measuring 12 mm and 9 mm respectively.",
        (_f("liver", None, 12), _f("liver", None, 9)),
    ),
    Variant(
        "Hepatic segments II and V each contain one low density focus, 8 mm and 15 mm.",
        (_f("liver", "segment 2", 8, look="hypo"), _f("liver", "segment 5", 15, look="hypo")),
    ),
    Variant(
        "No focal hepatic lesion. No pancreatic mass. Kidneys enhance symmetrically without mass.",
        (),
        ("liver", "pancreas", "kidney"),
    ),
    Variant(
        "Liver, spleen and pancreas are within normal limits.",
        (),
        ("liver", "pancreas", "spleen"),
    ),
    Variant(
        "Simple cyst in the left kidney measuring 2.2 cm. No solid renal mass.",
        (),
        ("kidney",),
    ),
    Variant(
        "Scattered hepatic cysts, largest 1.4 cm in segment IVa. No suspicious liver lesion.",
        (),
        ("liver",),
    ),
    Variant(
        "Circumferential wall thickening of the sigmoid colon over 5.5 cm, concerning for malignancy.",
        (_f("colon", "sigmoid", 55),),
    ),
    Variant(
        "Annular constricting mass in the ascending colon, approximately 4 cm in length, with shouldering.",
        (_f("colon", "ascending", 40),),
    ),
    Variant(
        "A 6 mm hypodensity in hepatic segment 4B is too small to characterize.",
        (_f("liver", "segment 4b", 6, look="hypo"),),
    ),
    Variant(
        "Subcentimeter hypodense lesion in the left hepatic lobe, too small to characterise.",
        (_f("liver", "left lobe", look="hypo"),),
    ),
    Variant(
        "Stable 11 mm lesion in the pancreatic body, previously 12 mm on 03/04/2019.",
        (_f("pancreas", "body", 11),),
    ),
    Variant(
        "Segment 8 lesion has increased in size from 1.5 cm to 2.1 cm.",
        (_f("liver", "segment 8", 21),),
    ),
    Variant(
        "The previously described lesion of segment III now measures 19 x 16 mm, compared with 25 x 22 mm.",
        (_f("liver", "segment 3", 19, 16),),
    ),
    Variant(
        "Dominant mass in the right lobe of the liver measures 8.1 x 7.7 cm and was 7.0 x 6.5 cm on the prior study.",
        (_f("liver", "right lobe", 81, 77),),
    ),
    Variant(
        "Well-circumscribed hyperdense tumour of the interpolar region of the right kidney, 28mm.",
        (_f("kidney", "right interpolar", 28, look="hyper", margin="well-defined"),),
    ),
    Variant(
        "In the mid pole of the left kidney, a well defined isodense 1.9-cm lesion is present.",
        (_f("kidney", "left interpolar", 19, look="iso", margin="well-defined"),),
    ),
    Variant(
        "Liver: 3 hypoattenuating lesions ranging from 5 to 13 mm. Spleen: Normal.",
        (_f("liver", None, 13, n=3, look="hypo"),),
        ("spleen",),
    ),
    Variant(
        "There are four low-density foci in the liver measuring between 0.6 and 1.7 cm.",
        (_f("liver", None, 17, n=4, look="hypo"),),
    ),
    Variant(
        "No evidence of hepatic metastases. A 2-cm mass is noted in the head of the pancreas abutting the SMV.",
        (_f("pancreas", "head", 20),),
        ("liver",),
    ),
    Variant(
        "Pancreatic head/neck mass 3.6 x 2.9 cm encases the SMA. Liver is clear.",
        (_f("pancreas", "head", 36, 29),),
        ("liver",),
    ),
    Variant(
        "Possible 9 mm arterially hyperenhancing focus in segment V, without washout. LI-RADS 3.",
        (_f("liver", "segment 5", 9, look="hyper"),),
    ),
    Variant(
        "Cannot exclude a small pancreatic lesion due to motion artifact.",
        (),
        (),
    ),
    Variant(
        "Enlarged portocaval lymph node measuring 2.1 x 1.4 cm. Liver without focal abnormality.",
        (),
        ("liver",),
    ),
    Variant(
        "4 mm nonobstructing calculus in the right kidney. No hydronephrosis. Left adrenal nodule 1.8 cm, unchanged.",
        (),
        (),
    ),
    Variant(
        "FINDINGS: Liver demonstrates a one point five centimeter hypodense lesion in segment two.",
        (_f("liver", "segment 2", 15, look="hypo"),),
    ),
    Variant(
        "A three centimeter hypodense mass is seen in the tail of pancreas.",
        (_f("pancreas", "tail", 30, look="hypo"),),
    ),
    Variant(
        "Left lobe of liver: lesion 22x17mm, hypodense, margins indistinct.",
        (_f("liver", "left lobe", 22, 17, look="hypo", margin="ill-defined"),),
    ),
    Variant(
        "Liver mets: seg 7 - 31 mm, seg 2 - 14 mm.",
        (_f("liver", "segment 7", 31), _f("liver", "segment 2", 14)),
    ),
    Variant(
        "HEPATOBILIARY: 1.1 cm hypodense lesion in the caudate lobe (series 3, image 42). Gallbladder is normal.",
        (_f("liver", "caudate lobe", 11, look="hypo"),),
        ("gallbladder",),
    ),
    Variant(
        "KIDNEYS/URETERS: 2.7 cm heterogeneously enhancing lesion, lower pole right kidney (image 3/77), suspicious "
        "for RCC. Left kidney normal.",
        (_f("kidney", "right lower pole", 27, look="hyper"),),
    ),
    Variant(
        "There is no liver lesion; however a 17 mm hypovascular lesion is present in the pancreatic neck.",
        (_f("pancreas", "neck", 17, look="hypo"),),
        ("liver",),
    ),
    Variant(
        "Although the pancreas shows no mass, there is a new 10 mm hypodense lesion in hepatic segment VI.",
        (_f("liver", "segment 6", 10, look="hypo"),),
        ("pancreas",),
    ),
    Variant(
        "INDICATION: Known 5 cm liver mass.\nFINDINGS: The liver contains a hypodense mass in segments V/VIII, now "
        "42 x 39 mm.\nIMPRESSION: Liver mass, smaller.",
        (_f("liver", "segment 5/8", 42, 39, look="hypo"),),
    ),
    Variant(
        "CLINICAL HISTORY: Colon cancer, rule out liver metastases.\nFINDINGS: Two hypodense metastases in the right "
        "lobe of the liver, the larger 2.9 cm.\nIMPRESSION: Two liver metastases.",
        (_f("liver", "right lobe", 29, n=2, look="hypo"),),
    ),
    Variant(
        "IMPRESSION:\n1. 3.3 cm pancreatic body mass.\n2. No liver metastases.",
        (_f("pancreas", "body", 33),),
        ("liver",),
    ),
    Variant(
        "IMPRESSION: 1) Bilateral renal masses: 4.0 cm on the right and 2.5 cm on the left. 2) Normal liver.",
        (_f("kidney", "right", 40), _f("kidney", "left", 25)),
        ("liver",),
    ),
    Variant(
        "A mass of the hepatic flexure measures 6.3 x 4.1 cm with pericolonic stranding.",
        (_f("colon", "hepatic flexure", 63, 41),),
    ),
    Variant(
        "Polypoid lesion in the cecum, 3 cm. Remaining colon is unremarkable.",
        (_f("colon", "cecum", 30),),
    ),
    Variant(
        "Irregular mass replacing most of the pancreatic tail, size 6.0 cm x 4.8 cm x 5.1 cm.",
        (_f("pancreas", "tail", 60, 51, 48, margin="ill-defined"),),
    ),
    Variant(
        "Transverse colon: asymmetric wall thickening forming a mass of 4.7 cm.",
        (_f("colon", "transverse", 47),),
    ),
    Variant(
        "Small hemangioma in segment IV, 1.3 cm, stable since 2015.",
        (_f("liver", "segment 4", 13),),
    ),
    Variant(
        "Unchanged 0.9 cm angiomyolipoma of the right kidney. Otherwise the kidneys are normal.",
        (_f("kidney", "right", 9),),
    ),
    Variant(
        "Liver with diffuse steatosis. Focal fatty sparing adjacent to the gallbladder fossa. No mass.",
        (),
        ("liver",),
    ),
    Variant(
        "Pancreas is atrophic with no focal lesion or ductal dilation; main pancreatic duct 3 mm.",
        (),
        ("pancreas",),
    ),
    Variant(
        "The right lobe of the liver measures 16 cm in craniocaudal dimension. No focal lesions.",
        (),
        ("liver",),
    ),
    Variant(
        "The spleen measures 13.5 cm. A 21 mm hypodense splenic lesion is indeterminate.",
        (_f("spleen", None, 21, look="hypo"),),
    ),
    Variant(
        "Lesion 1: segment IVb, 24 mm. Lesion 2: segment VIII, 18 mm. Both in the liver and hypodense.",
        (_f("liver", "segment 4b", 24), _f("liver", "segment 8", 18)),
    ),
    Variant(
        "Target lesion 1 (liver seg 6): 33 mm, baseline 41 mm. Target lesion 2 (pancreas tail): 29 mm, baseline 30 mm.",
        (_f("liver", "segment 6", 33), _f("pancreas", "tail", 29)),
    ),
    Variant(
        "A couple of hypodense lesions in the liver, the biggest being 1.6 cm in the left lobe.",
        (_f("liver", "left lobe", 16, n=2, look="hypo"),),
    ),
    Variant(
        "Numerous bilobar hypovascular hepatic metastases. For reference, a segment II lesion measures 2.2 x 2.0 cm.",
        (_f("liver", "segment 2", 22, 20, n=0, look="hypo"),),
    ),
    Variant(
        "5.4-cm ill-marginated hypo-attenuating mass, pancreatic body and tail.",
        (_f("pancreas", "body", 54, look="hypo", margin="ill-defined"),),
    ),
    Variant(
        "Solid lesion with poorly defined margins, left upper pole, left kidney, measuring 3.0 cm (AP) x 2.6 cm (TR) "
        "x 3.4 cm (CC).",
        (_f("kidney", "left upper pole", 34, 30, 26, margin="ill-defined"),),
    ),
    Variant(
        "Arterial phase: hypervascular lesion segment 7, 26 mm, washing out on the portal venous phase.",
        (_f("liver", "segment 7", 26, look="hyper"),),
    ),
    Variant(
        "On portal venous phase images, the liver shows a sharply marginated hypodense nodule of 7 mm in segment 3.",
        (_f("liver", "segment 3", 7, look="hypo", margin="well-defined"),),
    ),
    Variant(
        "Neither the liver nor the pancreas shows a focal lesion.",
        (),
        ("liver", "pancreas"),
    ),
    Variant(
        "No suspicious lesion is identified in the liver, pancreas or kidneys.",
        (),
        ("liver", "pancreas", "kidney"),
    ),
    Variant(
        "Previously seen lesion in segment 5 of the liver is no longer visualized. No new hepatic lesion.",
        (),
        ("liver",),
    ),
    Variant(
        "Status post right nephrectomy for a 7 cm renal cell carcinoma. The left kidney is normal.",
        (),
        ("kidney",),
    ),
    Variant(
        "Cystic lesion in the pancreatic head, 1.8 x 1.2 cm, likely side-branch IPMN.",
        (_f("pancreas", "head", 18, 12),),
    ),
    Variant(
        "Complex partially cystic mass at the lower pole of the right kidney, 6.6 cm, Bosniak IV.",
        (_f("kidney", "right lower pole", 66),),
    ),
    Variant(
        "There is a 1.2 cm lesion in the liver and a 3.5 cm mass in the left kidney.",
        (_f("liver", None, 12), _f("kidney", "left", 35)),
    ),
    Variant(
        "Hypodense lesions in segment 6 (2.0 cm) and segment 8 (1.1 cm) of the liver are compatible with metastases.",
        (_f("liver", "segment 6", 20, look="hypo"), _f("liver", "segment 8", 11, look="hypo")),
    ),
    Variant(
        "Bowel: apple-core lesion of the descending colon spanning 38 mm. No obstruction.",
        (_f("colon", "descending", 38),),
    ),
    Variant(
        "Colon: there is a 5 cm segment of irregular mural thickening at the rectosigmoid junction, tumour suspected.",
        (_f("colon", "sigmoid", 50, margin="ill-defined"),),
    ),
    Variant(
        "Liver lesion(s): none. Pancreas lesion(s): one, head, 2.5 cm, hypodense.",
        (_f("pancreas", "head", 25, look="hypo"),),
        ("liver",),
    ),
    Variant(
        "liver - nil focal. pancreas - 15mm hypodense lesion body. kidneys - nad.",
        (_f("pancreas", "body", 15, look="hypo"),),
        ("liver", "kidney"),
    ),
    Variant(
        "Large exophytic hepatic mass of 11 cm from the left lateral segment with well-delineated borders.",
        (_f("liver", "left lobe", 110, margin="well-defined"),),
    ),
    Variant(
        "Several tiny low-attenuation lesions throughout the liver measuring less than 5 mm.",
        (_f("liver", n=0, look="hypo"),),
    ),
)
TUNED: tuple[Variant, ...] = VARIANTS[0::2]
HELD_OUT: tuple[Variant, ...] = VARIANTS[1::2]
