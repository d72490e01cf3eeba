"""What every figure of a study's report means. A changed meaning raises `DEFINITIONS_VERSION`."""

from __future__ import annotations

DEFINITIONS_VERSION = 2

DEFINITIONS = {
    "answer": "the first answer of a reader to a trial. Practice and repeated trials are in no figure but the last "
    "of agreement.",
    "accuracy": "right answers of all that were decided; `unsure` is left out and counted beside it. 95 % interval: "
    "Wilson's. Of several readers, the second interval draws readers and trials with replacement, because answers "
    "to one case are not independent.",
    "sensitivity, specificity": "synthetic lesions called synthetic, real ones called real; Wilson's 95 % interval.",
    "AUC": "share of pairs of a synthetic and a real case in which the synthetic one was rated higher, from certainly "
    "real (-5) over unsure (0) to certainly synthetic (5); ties count half. 0.5 is chance. 95 % interval: bootstrap "
    "over cases within their class, and over readers where there are several. Not given for readers who rated fewer "
    "than five cases of a class, of whom a few answers decide it. In forced choice accuracy is the AUC.",
    "d'": "z(hits) - z(false alarms) with (count + 0.5) / (n + 1); in forced choice sqrt(2) z(share correct). 0 is "
    "chance.",
    "criterion": "-(z(hits) + z(false alarms)) / 2: positive for a reader who rather says real. In forced choice of "
    "the side: positive for one who rather says right.",
    "agreement between readers": "Cohen's kappa of two, Fleiss' of all, over the trials that they all answered; "
    "unsure is an answer of its own. 0 is agreement by chance.",
    "agreement within a reader": "Cohen's kappa of first and repeated answers.",
    "time": "while the case was on the screen, loading and hidden tab left out.",
    "equivalence": "two one-sided tests at 5 % of accuracy, unsure as half right, against 50 % minus and plus the "
    "margin; the same as Wilson's 90 % interval within the margin. Of several readers the bootstrap's 90 % interval "
    "has to lie within it as well.",
    "answers needed": "for 80 % power if readers truly guess, independent answers: ((z.95 + z.90) / (2 margin))².",
    "machine observer": "the classifier of `phantumor realism` (logistic regression on texture and edge features of "
    "16 mm boxes, held-out) on the crops of this study; not given for fewer than five lesions of a class.",
}
