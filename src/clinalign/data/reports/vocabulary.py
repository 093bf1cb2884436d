"""The words of chest reports: what names a finding, what denies or doubts it, where it lies and how large it is.

Tables only. Entries are regular expressions on text as :func:`clinalign.data.reports.mentions.plain` leaves it: lower
case, single blanks, hyphens as blanks, brackets as commas, ``, ; :`` standing alone, removed words gone. Each is
matched as whole words. The findings are those of CheXpert (Irvin et al., AAAI 2019); which words belong to which, and
where we differ, is our choice and stands in ``docs/reports.md``.
"""

from __future__ import annotations

NO_FINDING = "No Finding"
FINDINGS = (
    NO_FINDING,
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The fourteen labels, in the order of CheXpert."""

PATHOLOGIES = FINDINGS[1:13]
"""What makes a film one with findings: all but 'No Finding' and 'Support Devices'."""

PLACED = frozenset(FINDINGS[3:14])
"""Findings that lie on a side; the heart and the mediastinum do not."""

ZONED = frozenset(FINDINGS[3:12])
"""Findings of lung and pleura, which lie in a zone of the lung."""

_LUNG = r"(?:lung|pulmonary|parenchymal)"

MENTIONS: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": (
        r"(?:cardio)?mediastinal (?:widening|enlargement|prominence)",
        r"(?:widening|enlargement|prominence) of the (?:\w+ )?(?:cardio)?mediastin(?:um|al \w+)",
    ),
    "Cardiomegaly": (
        r"cardiomegaly",
        r"(?:cardiac|heart|cardiac silhouette) enlargement",
        r"enlargement of the (?:heart|cardiac \w+)",
    ),
    "Lung Opacity": (
        r"opacit(?:y|ies)",
        r"opacifications?",
        r"opacified",
        r"densit(?:y|ies)",
        r"air ?space (?:disease|process|opacit(?:y|ies)|changes?|densit(?:y|ies)|filling)",
        r"infiltrat(?:es?|ions?|ive)",
        r"(?:increased |prominent |coarse(?:ned)? |accentuated )(?:\w+ )?(?:interstitial|bronchovascular|lung|"
        r"reticular) markings",
        r"(?:increased|prominent|prominence of|coarsening of)(?: the)?(?: \w+)? (?:interstitium|"
        r"interstitial (?:pattern|changes?|lung markings))",
        r"(?:prominence|coarsening) of the (?:\w+ )?(?:interstitial|bronchovascular|lung|reticular) markings",
        r"(?:interstitial|lung|bronchovascular) markings (?:is|are|appear) (?:\w+ )?(?:increased|prominent|coarse|"
        r"coarsened|accentuated)",
        r"interstitial (?:prominence|thickening|disease|lung disease|changes?|process|abnormalit(?:y|ies))",
        r"reticul(?:o ?nodular|ar)(?: (?:pattern|opacit(?:y|ies)|markings|densit(?:y|ies)))?",
        r"reticulations?",
        r"haz(?:e|y|iness)(?: opacit(?:y|ies))?",
        r"(?:scars?|scarring)",
        r"fibro(?:sis|tic)(?: changes?)?",
        r"alveolar (?:disease|process|opacit(?:y|ies))",
    ),
    "Lung Lesion": (
        r"(?:micro ?)?nodules?",
        r"nodular (?:opacit(?:y|ies)|densit(?:y|ies)|lesions?|foc(?:us|i)|shadows?|infiltrates?)",
        r"nodularit(?:y|ies)",
        r"mass(?:es)?",
        r"mass ?like (?:opacit(?:y|ies)|densit(?:y|ies)|consolidation)",
        rf"{_LUNG} lesions?",
        r"cavit(?:y|ies|ary lesions?|ation)",
        r"(?:neoplasms?|neoplastic|tumou?rs?|malignan(?:cy|cies)|carcinomas?|metastas[ei]s|"
        r"metastatic(?: \w+){0,3} disease)",
    ),
    "Edema": (
        r"edema",
        r"(?:congestive )?(?:heart|cardiac) failure",
        r"chf",
        r"(?:vascular|pulmonary|venous|interstitial|central|pulmonary vascular|pulmonary venous) congestion",
        r"vascular (?:engorgement|prominence|redistribution|cephalization|indistinctness)",
        r"cephalization",
        r"kerley b lines",
        r"(?:engorged|congested) (?:pulmonary )?(?:vessels|vasculature|vascularity)",
        r"(?:fluid|volume) overload",
    ),
    "Consolidation": (
        r"(?:air ?space |alveolar )?consolidat(?:ions?|ed)",
        r"consolidative(?: (?:changes?|process))?",
    ),
    "Pneumonia": (
        r"(?:broncho)?pneumonias?",
        r"infect(?:ions?|ious)(?: (?:process|infiltrate|etiology|disease))?",
        r"pneumonic(?: \w+)?",
    ),
    "Atelectasis": (
        r"atelectasis",
        r"atelectases",
        r"atelectatic(?: changes?)?",
        r"(?:lobar|lung|lobe|pulmonary|segmental) collapse",
        r"collapse of the (?:left|right)(?: \w+)? (?:lobe|lung)",
        r"collapsed (?:lung|lobe|left|right)",
    ),
    "Pneumothorax": (r"(?:hydro|hemo)?pneumothora(?:x|xes|ces)", r"ptx"),
    "Pleural Effusion": (
        r"(?:pleural |parapneumonic )?effusions?",
        r"pleural fluid(?: collections?)?",
        r"fluid in the (?:\w+ ){0,3}(?:fissures?|pleural space)",
        r"(?:fissural|loculated|subpulmonic) fluid",
        r"(?:hydro|hemo)thorax",
        r"empyema",
    ),
    "Pleural Other": (
        r"pleural (?:\w+ )?(?:thickening|plaques?|scarring|scars?|calcifications?|fibrosis|abnormalit(?:y|ies)|"
        r"disease|masses)",
        r"pleuro ?parenchymal (?:scarring|scars?|thickening|changes?)",
        r"(?:bi)?apical (?:pleural )?(?:caps?|capping|thickening)",
        r"(?:calcified |thickened )pleura(?:l plaques?)?",
        r"thickening of the (?:\w+ ){0,2}(?:pleura|fissures?)",
        r"(?:fissural|fissure) thickening",
        r"scarring / pleural thickening",
        r"fibrothorax",
        r"pleurodiaphragmatic adhesions?",
    ),
    "Fracture": (
        r"fractures?",
        r"fractured",
        r"compression (?:deformit(?:y|ies)|fractures?)",
        r"vertebral (?:body )?collapse",
    ),
    "Support Devices": (
        r"(?:cardiac )?pace ?makers?(?: (?:leads?|generators?|devices?|wires?))?",
        r"pacing",
        r"pacer(?: (?:leads?|wires?))?",
        r"a?icds?|defibrillators?(?: leads?)?",
        r"leads?",
        r"(?:central venous |dialysis |swan ganz |port ?a ?|picc |subclavian |drainage |pigtail )?catheters?",
        r"(?:picc|central|central venous|ij|subclavian|jugular|venous|nasogastric)? ?lines",
        r"(?:picc|central|central venous|ij|subclavian|jugular|support|arterial) line",
        r"picc",
        r"(?:endotracheal|tracheostomy|enteric|nasogastric|orogastric|ng|et|chest|feeding|gastric|"
        r"thoracostomy)? ?tubes?",
        r"tracheostomy",
        r"(?:chest |infusion |subclavian |venous )?(?:medi|porta?)?ports?",
        r"porta?caths?|medi ?ports?|port a caths?",
        r"(?:support )?(?:devices?|apparatus)",
        r"hardware",
        r"prosthe(?:sis|ses|tic)(?: (?:heart |cardiac |aortic |mitral )?valves?)?",
        r"(?:artificial|mechanical|prosthetic|replacement|aortic|mitral) valves?(?= (?:prosthesis|replacement|"
        r"ring)| are| is)",
        r"valve replacements?",
        r"arthroplast(?:y|ies)|(?:joint|shoulder) replacements?",
        r"(?:surgical |vascular |hemo|cholecystectomy |mediastinal |metallic |cabg |cardiac )*clips?",
        r"(?:sternotomy |sternal |median sternotomy |cerclage |metallic )?(?:wires?|sutures)",
        r"staples?|staple line|suture (?:line|material)",
        r"(?:fixation |orthopedic )?(?:screws?|rods?|plates?(?= and)|anchors?|plugs?|coils?|pins)",
        r"stents?|ivc filters?|(?:graft )?markers",
        r"stimulators?|loop recorders?|neurostimulators?|shunts?",
        r"drains?",
        r"tubing|implants?",
        r"(?:monitoring|electro\w+|ekg|ecg) (?:leads?|wires?|devices?)",
    ),
}  # fmt: skip
"""What names a finding when it is said to be there. Of overlapping matches the longest counts."""

OTHER_THINGS = (
    r"(?:pericardial|joint|middle ear) effusions?",
    r"(?:mediastinal|hilar|paratracheal|abdominal|breast|bone|bony|osseous|thyroid|soft tissue|"
    r"neck) (?:mass(?:es)?|nodules?|lesions?|densit(?:y|ies))",
    r"mass effect",
    r"(?:thoracic|abdominal|peritoneal|chest|nasal|oral|medullary) cavity",
    r"fractured (?:\w+ ){0,3}(?:wires?|leads?|sutures?|sternotomy)",
    r"(?:sternotomy |sternal )?(?:wires?|leads?|sutures?) (?:\w+ ){0,3}(?:fractured|fractures?)",
    r"bone densit(?:y|ies)|bony densit(?:y|ies)|osseous densit(?:y|ies)|mineral density|body mass",
    r"densit(?:y|ies) (?:over|overlying|projecting over) the (?:breasts?|abdomen|neck|shoulder)(?: \w+)?",
    r"nipple (?:shadows?|markers?|densit(?:y|ies))",
    r"(?:soft tissue|subcutaneous|peripheral|scrotal|leg) edema",
    r"(?:prior|previous|old|remote|granulomatous|treated)(?: granulomatous)? (?:infections?|infectious process|"
    r"pneumonia)",
    r"calcified densit(?:y|ies)",
    r"leads? to",
    r"air fluid lines",
    r"mid ?lines?|trachea(?:l)? lines?|hair ?lines?|paratracheal lines?|lines of",
    r"support(?:s|ed)?",
    r"pectus \w+",
    r"port(?:able|ion\w*)",
    r"growth plates?|end ?plates?",
    r"(?:healing )?(?:site|drain)age",
)
"""What sounds like a finding of the table above and is none."""

SUBJECTS: dict[str, tuple[str, ...]] = {
    "Cardiomegaly": (
        r"heart(?: size| silhouette| shadow| contours?)?(?! (?:failure|disease|border|valve|rate|attack|block|"
        r"enlargement))",
        r"cardiac (?:size|silhouette|shadow|contours?|borders?)",
        r"cardiac(?= (?:and|,))",
    ),
    "Enlarged Cardiomediastinum": (
        r"cardiomediastin(?:um|al(?: (?:silhouettes?|contours?|structures|shadow|borders?|size|margins?|outline))?)"
        r"(?! (?:widening|enlargement|prominence))",
        r"mediastin(?:um|al (?:silhouettes?|contours?|structures|width|configuration|shadow|borders?|margins?|"
        r"size|outlines?))",
        r"mediastinal(?= (?:and|,) (?:\w+ )?(?:silhouettes?|contours?|structures|borders?))",
    ),
    "Lung Opacity": (r"(?:lungs?|lung fields?|lung parenchyma|lung bases?|"
        r"lung volumes which)(?! (?:volumes?(?! which)|markings|inflation|expansion))",),
    "Pleural Effusion": (
        r"costophrenic(?: (?:angles?|sulc(?:us|i)|recess(?:es)?))?",
        r"(?:cp|costophrenic) angles?",
        r"pleural (?:spaces?|surfaces?|sulci|recesses|cavit(?:y|ies))",
    ),
}  # fmt: skip
"""Anatomy that is called normal or not, and the finding that this speaks of."""

_NORMAL = r"normal|unremarkable|within(?: the)? limits of normal|within normal limits?|wnl|not remarkable"
_BORDERLINE = (
    r"borderline(?: \w+)?|(?:at |near )?(?:the )?(?:upper|top|high|limits)(?: limits?)?(?: of)? normal|top normal|"
    r"of the limits of normal"
)
_LARGE = r"enlarged|prominent|enlargement|prominence|increased|large|widened|widening|globular|dilated|generous"

STATES: dict[str, dict[str, str]] = {
    # subject's finding -> what is said of it: normal (label 0), abnormal (label 1), doubtful (uncertain)
    "Cardiomegaly": {"doubtful": _BORDERLINE, "normal": _NORMAL, "abnormal": _LARGE},
    "Enlarged Cardiomediastinum": {"doubtful": _BORDERLINE, "normal": _NORMAL, "abnormal": _LARGE},
    "Lung Opacity": {
        "normal": r"clear(?! (?:of|from))|(?:normal|unremarkable)(?! (?:in |volumes?|inflat|expan|aerat|"
        r"lung volume))",
    },
    "Pleural Effusion": {
        "normal": r"clear(?! of)|sharp|sharply defined|normal|unremarkable|well defined|preserved",
        "doubtful": r"blunt(?:ed|ing)|obscur(?:ed|ation)",
    },
}
"""Of these the earliest in the sentence counts, and of those at one place the first in the table."""

ANOTHER_PART = r"aort\w+|hil(?:a|um|ar)|vascul\w+|vessels|spine|bon\w+|diaphragm\w*"
"""Between a state and a subject these say that the state is theirs."""

UNCHANGED = r"stable|unchanged|similar|unaltered|the same|not changed|no change"
"""Says of a subject that it is as before: neither normal nor not."""

NORMAL_FILM = (
    r"(?:no|without|negative for|free of)(?: (?:any|other|further|additional|new|definite|convincing|significant|"
    r"radiographic|radiographically|visible|"
    r"obvious|apparent|plain film|x ray|focal|acute|active|evidence (?:of|for)|evident|identifiable|gross|or|and|"
    r"/|,))*"
    r"(?: (?:cardio ?pulmonary|cardio ?thoracic|intra ?thoracic|thoracic|chest|pulmonary|cardiac|lung|heart|and|"
    r"or|/|,))*"
    r"(?: (?:radiographic|acute|active))*"
    r" (?:abnormalit(?:y|ies)|disease|process(?:es)?|findings?|patholog(?:y|ies)|disease process)"
    r"(?! (?:of|in) (?!the (?:chest|lungs|thorax)))",
    r"(?:normal|negative|unremarkable)(?: \w+){0,2} (?:chest(?! (?:wall|tube))|exam(?:ination)?|stud(?:y|ies)|"
    r"radiographs?|films?)",
    r"chest (?:x ray |radiographs? |film )?(?:is |appears |, )?(?:normal|negative|unremarkable)",
)
"""Says that the film as a whole, or heart and lungs as a whole, are normal."""

ELSEWHERE = (
    r"bony|osseous|skelet\w+|bones?|spine|ribs?|soft tissues?|abdom\w+|knees?|shoulders?|neck|vertebra\w*|"
    r"diaphragm\w*|hila|aorta"
)
"""Named before such words, these are what is normal, and not the film."""
