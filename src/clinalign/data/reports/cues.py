"""The words around a finding in chest reports: denial, doubt, ends of clauses, sides, zones and sizes.

Tables only, in the notation of :mod:`clinalign.data.reports.vocabulary`.
"""

from __future__ import annotations

NOT_NEGATION = (
    r"no (?:(?:significant|interval|definite|appreciable|obvious|acute|substantial|further|marked|gross|notable) )"
    r"{0,2}(?:change|increase|decrease|progression|growth|worsening|"
    r"improvement)s?(?: (?:in|of|from|to|since))?",
    r"no suggestion of (?:enlargement|growth|change)(?: of)?",
    r"(?:not|without) (?:\w+ ){0,2}(?:chang(?:ed?|ing)|increased|decreased|enlarged since|worsened)(?: in)?",
    r"not (?:only|necessarily)",
    r"not (?:\w+ )?(?:seen|identified|visuali[sz]ed|present|evident|noted|appreciated) (?:on|"
    r"in) (?:the )?(?:prior|previous|earlier|comparison|old)",
    r"no doubt",
)
"""Contains a cue, denies a change and not the finding."""

_NO_LINK = (
    r"(?!(?:and|with|is|are|for|to|may|might|could|which|suggest\w*|represent\w*|reflect\w*|concern\w*|suspicious|"
    r"consistent|compatible|likely|possibly|probably|due|from|as)\b)"
)
ALTERNATIVE = rf"(?: {_NO_LINK}\w+){{0,4}} (?:, )?(?:or|versus|vs|/)(?: {_NO_LINK}\w+){{0,4}} ?"
"""What stands between two findings of which one is meant.

Not so in 'opacity concerning for aspiration or pneumonia': the opacity is there.
"""

DENIED_BEFORE = (
    r"no|not|without|nor|neither|never",
    r"negative for|free (?:of|from)|clear (?:of|from)|absence of|absent|lack of|devoid of",
    r"resolution of|resolved|resolving of|interval clearing of|removal of|rather than|excludes?|denies",
)
DENIED_AFTER = (
    r"(?:is|are|was|were|has been|have been)? ?(?:not|no longer) (?:\w+ )?(?:seen|identified|visuali[sz]ed|"
    r"present|evident|noted|appreciated|"
    r"demonstrated|apparent|observed|detected|found|visible)(?! (?:on|in) (?:the )?(?:prior|previous|lateral|"
    r"frontal|comparison|earlier|old))",
    r"(?:has|have)(?: \w+)? (?:resolved|cleared)|(?:is|are|now) (?:\w+ )?(?:resolved|absent|negative)",
    r"(?:is|are|appears?)? ?within (?:the )?(?:normal limits?|limits of normal)",
    r"(?:has|have) been removed|(?:is|are|was|were) (?:excluded|ruled out)",
)  # fmt: skip
_CANNOT_EXCLUDE = (
    r"(?:cannot|can not|could not|not|unable to|difficult to|to)(?: \w+)? (?:exclude|rule out)|rule out|r / o"
)
_CANNOT_BE_EXCLUDED = (
    r"(?:cannot|can not|could not)(?: \w+)? be (?:\w+ )?(?:excluded|ruled out)|not (?:\w+ )?(?:excluded|ruled out)"
)
DOUBTED_BEFORE_NEAR = (
    r"possible|possibly|probable|probably|likely|unlikely|questionable|question|questioned|suspected|potential|"
    r"presumed|"
    r"presumably|equivocal|perhaps|borderline|vague possible|apparent possible",
)
"""Doubt the noun behind them, up to the next comma or 'and'."""

DOUBTED_BEFORE = (
    r"may|might|could|suggest(?:s|ing|ive|ed|ion)?(?: of)?|versus|vs",
    r"suspicious for|suspicion (?:of|for)|concern(?:s|ing|ed)?(?: for| of| about)|worrisome for|question of",
    _CANNOT_EXCLUDE,
    r"evaluat(?:e|ed|ion)(?: \w+)? (?:for|of)|assess(?:ment)? for|differential(?: diagnosis)?(?: considerations?)?",
    r"favou?r(?:s|ed|ing)?(?: to)?|considerations? (?:include|includes)|if|less likely|to (?:identify|look for)",
)
"""Doubt all that follows in their clause."""

DOUBTED_AFTER = (
    _CANNOT_BE_EXCLUDED,
    r"(?:is|are|would be|remains?) (?:\w+ )?(?:possible|suspected|questioned|questionable|likely|unlikely|"
    r"probable|considered|a possibility|a consideration|a concern|suggested|less likely|favou?red)"
    r"(?! (?:to|due|related|secondary|represent\w*|reflect\w*)\b)",
    r"not (?:well|fully|adequately) (?:evaluated|assessed|seen)|(?:is|are) (?:a )?(?:possibilit(?:y|ies)|"
    r"considerations?)",
    r"(?:should|could|may|might) be considered|suspected|possible(?! \w)",
)

DOUBT_WITH_NOT = (_CANNOT_EXCLUDE, _CANNOT_BE_EXCLUDED)
"""Doubt in negating words: no denial."""

PAST = (r"history of|hx of|h / o|status post|s / p|residuals? of|sequelae? of|treated for",)
"""What follows is no mention: it was, and is not said to be."""

CLAUSE_ENDS = (
    r";|:|but|however|although|though|whereas|while|except(?: for)?|other than|apart from|aside from|which|where|yet",
    r"otherwise",
    r"(?<!consistent )(?<!compatible )(?<!associated )(?<!keeping )with(?! respect)",
    r"and(?= (?:there|the|a|an|this|these|both|it)\b)",
    r"and(?= (?:[\w/]+ ){1,4}(?:is|are|appears?|remains?|has|have)\b)",
)
"""End the reach of a cue."""

NEW_CLAUSE = (
    r"there|the|a|an|this|these|heart|lungs?|stable|unchanged|persistent|residual|chronic|small|tiny|mild|minimal|"
    r"moderate|"
    r"large|low|bilateral|left|right|bibasilar|scattered|calcified|old|healed|degenerative|patient|consistent|"
    r"compatible"
)
"""Behind a comma these begin something new, unless an 'or' further on shows that a list goes on."""

# Place and size

SIDES: dict[str, str] = {
    "left": r"left(?! (?:atri\w+|ventric\w+|heart|main))",
    "right": r"right(?! (?:atri\w+|ventric\w+|heart|main))",
    "bilateral": r"bilateral|bilaterally|both|bibasilar|bibasal|biapical|bibasally|bi basilar|bi apical",
    "plural": r"(?:lung )?bases|apices|lower lobes|upper lobes|lungs|lung fields|lower lung zones|"
    r"upper lung zones|lung apices",
}
"""'plural' words mean both sides where no side is named."""

ZONES: dict[str, str] = {
    "upper": r"upper(?! (?:limits?|abdom\w+|quadrant|extremit\w+|thoracic|normal|lumbar|mediastin\w+))|apex|"
        r"apices|apical|biapical|bi apical|suprahilar",
    "middle": r"mid(?:dle)?(?! (?:clavic\w+|thoracic|mediastin\w+|spine|portion|svc))|mid ?(?:lung|zone)s?|"
        r"lingulas?|lingular|"
    r"(?:peri|para|retro)hilar|hilar|hilum",
    "lower": r"lower(?! (?:thoracic|lumbar|cervical|extremit\w+|svc|neck))|(?<!skull )bases?|basilar|basal|"
        r"bibasilar|bibasal|bi basilar|retrocardiac|"
    r"infrahilar|bibasally",
}  # fmt: skip

SIZES: dict[str, str] = {
    "small": r"small|tiny|minimal|trace|minute|mild|slight|subtle|trivial|minor",
    "moderate": r"moderate",
    "large": r"large|massive|extensive|marked|severe|huge|big|considerable",
}
