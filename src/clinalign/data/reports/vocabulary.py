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
        r"(?:increased |prominent |coarse(?:ned)? |accentuated )(?:\w+ )?(?:interstitial|bronchovascular|lung|reticular) markings",
        r"(?:increased|prominent|prominence of|coarsening of)(?: the)?(?: \w+)? (?:interstitium|interstitial (?:pattern|changes?|lung markings))",
        r"(?:prominence|coarsening) of the (?:\w+ )?(?:interstitial|bronchovascular|lung|reticular) markings",
        r"(?:interstitial|lung|bronchovascular) markings (?:is|are|appear) (?:\w+ )?(?:increased|prominent|coarse|coarsened|accentuated)",
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
        r"(?:neoplasms?|neoplastic|tumou?rs?|malignan(?:cy|cies)|carcinomas?|metastas[ei]s|metastatic(?: \w+){0,3} disease)",
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
        r"pleural (?:\w+ )?(?:thickening|plaques?|scarring|scars?|calcifications?|fibrosis|abnormalit(?:y|ies)|disease|masses)",
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
        r"(?:endotracheal|tracheostomy|enteric|nasogastric|orogastric|ng|et|chest|feeding|gastric|thoracostomy)? ?tubes?",
        r"tracheostomy",
        r"(?:chest |infusion |subclavian |venous )?(?:medi|porta?)?ports?",
        r"porta?caths?|medi ?ports?|port a caths?",
        r"(?:support )?(?:devices?|apparatus)",
        r"hardware",
        r"prosthe(?:sis|ses|tic)(?: (?:heart |cardiac |aortic |mitral )?valves?)?",
        r"(?:artificial|mechanical|prosthetic|replacement|aortic|mitral) valves?(?= (?:prosthesis|replacement|ring)| are| is)",
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
    r"(?:mediastinal|hilar|paratracheal|abdominal|breast|bone|bony|osseous|thyroid|soft tissue|neck) (?:mass(?:es)?|nodules?|lesions?|densit(?:y|ies))",
    r"mass effect",
    r"(?:thoracic|abdominal|peritoneal|chest|nasal|oral|medullary) cavity",
    r"fractured (?:\w+ ){0,3}(?:wires?|leads?|sutures?|sternotomy)",
    r"(?:sternotomy |sternal )?(?:wires?|leads?|sutures?) (?:\w+ ){0,3}(?:fractured|fractures?)",
    r"bone densit(?:y|ies)|bony densit(?:y|ies)|osseous densit(?:y|ies)|mineral density|body mass",
    r"densit(?:y|ies) (?:over|overlying|projecting over) the (?:breasts?|abdomen|neck|shoulder)(?: \w+)?",
    r"nipple (?:shadows?|markers?|densit(?:y|ies))",
    r"(?:soft tissue|subcutaneous|peripheral|scrotal|leg) edema",
    r"(?:prior|previous|old|remote|granulomatous|treated)(?: granulomatous)? (?:infections?|infectious process|pneumonia)",
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
        r"heart(?: size| silhouette| shadow| contours?)?(?! (?:failure|disease|border|valve|rate|attack|block|enlargement))",
        r"cardiac (?:size|silhouette|shadow|contours?|borders?)",
        r"cardiac(?= (?:and|,))",
    ),
    "Enlarged Cardiomediastinum": (
        r"cardiomediastin(?:um|al(?: (?:silhouettes?|contours?|structures|shadow|borders?|size|margins?|outline))?)"
        r"(?! (?:widening|enlargement|prominence))",
        r"mediastin(?:um|al (?:silhouettes?|contours?|structures|width|configuration|shadow|borders?|margins?|size|outlines?))",
        r"mediastinal(?= (?:and|,) (?:\w+ )?(?:silhouettes?|contours?|structures|borders?))",
    ),
    "Lung Opacity": (r"(?:lungs?|lung fields?|lung parenchyma|lung bases?|lung volumes which)(?! (?:volumes?(?! which)|markings|inflation|expansion))",),
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
        "normal": r"clear(?! (?:of|from))|(?:normal|unremarkable)(?! (?:in |volumes?|inflat|expan|aerat|lung volume))",
    },
    "Pleural Effusion": {
        "normal": r"clear(?! of)|sharp|sharply defined|normal|unremarkable|well defined|preserved",
        "doubtful": r"blunt(?:ed|ing)|obscur(?:ed|ation)",
    },
}
"""Of these the earliest in the sentence counts, and of those at one place the first in the table."""

UNCHANGED = r"stable|unchanged|similar|unaltered|the same|not changed|no change"
"""Says of a subject that it is as before: neither normal nor not."""

NORMAL_FILM = (
    r"(?:no|without|negative for|free of)(?: (?:any|other|further|additional|new|definite|convincing|significant|radiographic|radiographically|visible|"
    r"obvious|apparent|plain film|x ray|focal|acute|active|evidence (?:of|for)|evident|identifiable|gross|or|and|/|,))*"
    r"(?: (?:cardio ?pulmonary|cardio ?thoracic|intra ?thoracic|thoracic|chest|pulmonary|cardiac|lung|heart|and|or|/|,))*"
    r"(?: (?:radiographic|acute|active))*"
    r" (?:abnormalit(?:y|ies)|disease|process(?:es)?|findings?|patholog(?:y|ies)|disease process)"
    r"(?! (?:of|in) (?!the (?:chest|lungs|thorax)))",
    r"(?:normal|negative|unremarkable)(?: \w+){0,2} (?:chest(?! (?:wall|tube))|exam(?:ination)?|stud(?:y|ies)|radiographs?|films?)",
    r"chest (?:x ray |radiographs? |film )?(?:is |appears |, )?(?:normal|negative|unremarkable)",
)
"""Says that the film as a whole, or heart and lungs as a whole, are normal."""

ELSEWHERE = r"bony|osseous|skelet\w+|bones?|spine|ribs?|soft tissues?|abdom\w+|knees?|shoulders?|neck|vertebra\w*|diaphragm\w*|hila|aorta"
"""Named before such words, these are what is normal, and not the film."""

# Scope

NOT_NEGATION = (
    r"no (?:\w+ ){0,2}(?:change|increase|decrease|enlargement|progression|growth|worsening|improvement)s?(?: (?:in|of|from|to|since))?",
    r"no suggestion of (?:enlargement|growth|change)(?: of)?",
    r"(?:not|without) (?:\w+ ){0,2}(?:chang(?:ed?|ing)|increased|decreased|enlarged since|worsened)(?: in)?",
    r"not (?:only|necessarily)",
    r"not (?:\w+ )?(?:seen|identified|visuali[sz]ed|present|evident|noted|appreciated) (?:on|in) (?:the )?(?:prior|previous|earlier|comparison|old)",
    r"no doubt",
)
"""Contains a cue, denies a change and not the finding."""

DENIED_BEFORE = (
    r"no|not|without|nor|neither|never",
    r"negative for|free (?:of|from)|clear (?:of|from)|absence of|absent|lack of|devoid of",
    r"resolution of|resolved|resolving of|interval clearing of|removal of|rather than|excludes?|denies",
)
DENIED_AFTER = (
    r"(?:is|are|was|were|has been|have been)? ?(?:not|no longer) (?:\w+ )?(?:seen|identified|visuali[sz]ed|present|evident|noted|appreciated|"
    r"demonstrated|apparent|observed|detected|found|visible)(?! (?:on|in) (?:the )?(?:prior|previous|lateral|frontal|comparison|earlier|old))",
    r"(?:has|have)(?: \w+)? (?:resolved|cleared)|(?:is|are|now) (?:\w+ )?(?:resolved|absent|negative)",
    r"(?:is|are|appears?)? ?within (?:the )?(?:normal limits?|limits of normal)",
    r"(?:has|have) been removed|(?:is|are|was|were) (?:excluded|ruled out)",
)  # fmt: skip
DOUBTED_BEFORE_NEAR = (
    r"possible|possibly|probable|probably|likely|unlikely|questionable|question|questioned|suspected|potential|presumed|"
    r"presumably|equivocal|perhaps|borderline|vague possible|apparent possible",
)
"""Doubt the noun behind them, up to the next comma or 'and'."""

DOUBTED_BEFORE = (
    r"may|might|could|suggest(?:s|ing|ive|ed|ion)?(?: of)?|versus|vs",
    r"suspicious for|suspicion (?:of|for)|concern(?:s|ing|ed)?(?: for| of| about)|worrisome for|question of",
    r"(?:cannot|can not|could not|not|unable to|difficult to|to)(?: \w+)? (?:exclude|rule out)|rule out|r / o",
    r"evaluat(?:e|ed|ion)(?: \w+)? (?:for|of)|assess(?:ment)? for|differential(?: diagnosis)?(?: considerations?)?",
    r"favou?r(?:s|ed|ing)?(?: to)?|considerations? (?:include|includes)|if|less likely|to (?:identify|look for)",
)
"""Doubt all that follows in their clause."""

DOUBTED_AFTER = (
    r"(?:cannot|can not|could not)(?: \w+)? be (?:\w+ )?(?:excluded|ruled out)|not (?:\w+ )?(?:excluded|ruled out)",
    r"(?:is|are|would be|remains?) (?:\w+ )?(?:possible|suspected|questioned|questionable|likely|unlikely|probable|considered|"
    r"a possibility|a consideration|a concern|suggested|less likely|favou?red)",
    r"not (?:well|fully|adequately) (?:evaluated|assessed|seen)|(?:is|are) (?:a )?(?:possibilit(?:y|ies)|considerations?)",
    r"(?:should|could|may|might) be considered|suspected|possible(?! \w)",
)

DOUBT_WITH_NOT = (DOUBTED_BEFORE[2], DOUBTED_AFTER[0])
"""Doubt in negating words: no denial."""

PAST = (r"history of|hx of|h / o|status post|s / p|residuals? of|sequelae? of|treated for",)
"""What follows is no mention: it was, and is not said to be."""

CLAUSE_ENDS = (
    r";|:|but|however|although|though|whereas|while|except(?: for)?|other than|apart from|aside from|which|where|yet|otherwise|, (?=(?:may|might|could|most|likely|possibly|probably)\b)",
    r"(?<!consistent )(?<!compatible )(?<!associated )(?<!keeping )with(?! respect)",
    r"and (?=(?:there|the|a|an|this|these|both|it)\b)",
    r"and (?=(?:[\w/]+ ){1,4}(?:is|are|appears?|remains?|has|have)\b)",
)
"""End the reach of a cue."""

NEW_CLAUSE = (
    r"there|the|a|an|this|these|heart|lungs?|stable|unchanged|persistent|residual|chronic|small|tiny|mild|minimal|moderate|"
    r"large|low|bilateral|left|right|bibasilar|scattered|calcified|old|healed|degenerative|patient|consistent|compatible"
)
"""Behind a comma these begin something new, unless an 'or' further on shows that a list goes on."""

# Place and size

SIDES: dict[str, str] = {
    "left": r"left(?! (?:atri\w+|ventric\w+|heart|main))",
    "right": r"right(?! (?:atri\w+|ventric\w+|heart|main))",
    "bilateral": r"bilateral|bilaterally|both|bibasilar|bibasal|biapical|bibasally|bi basilar|bi apical",
    "plural": r"(?:lung )?bases|apices|lower lobes|upper lobes|lungs|lung fields|lower lung zones|upper lung zones|lung apices",
}
"""'plural' words mean both sides where no side is named."""

ZONES: dict[str, str] = {
    "upper": r"upper(?! (?:limits?|abdom\w+|quadrant|extremit\w+|thoracic|normal|lumbar|mediastin\w+))|apex|apices|apical|biapical|bi apical|suprahilar",
    "middle": r"mid(?:dle)?(?! (?:clavic\w+|thoracic|mediastin\w+|spine|portion|svc))|mid ?(?:lung|zone)s?|lingulas?|lingular|"
    r"(?:peri|para|retro)hilar|hilar|hilum",
    "lower": r"lower(?! (?:thoracic|lumbar|cervical|extremit\w+|svc|neck))|(?<!skull )bases?|basilar|basal|bibasilar|bibasal|bi basilar|retrocardiac|"
    r"infrahilar|bibasally",
}  # fmt: skip

SIZES: dict[str, str] = {
    "small": r"small|tiny|minimal|trace|minute|mild|slight|subtle|trivial|minor",
    "moderate": r"moderate",
    "large": r"large|massive|extensive|marked|severe|huge|big|considerable",
}
