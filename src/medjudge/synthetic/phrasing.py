"""How each relation of the fact base is asked and answered, in English and French.

`{s}` stands for the subject, `{S}` for the subject with a capital, `{v}` and `{V}` likewise for the value. French
texts set subject and value after a colon, because their article and elision depend on a gender that facts do not hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from medjudge.synthetic.facts import Language


@dataclass(frozen=True, slots=True)
class Phrasing:
    """The texts of one relation in one language."""

    asked: str
    """What is asked for, with its article: "the nerve". Starts sentences such as "The nerve is ..."."""
    questions: tuple[str, ...]
    """Questions about a subject, answered by a value."""
    reverse: tuple[str, ...]
    """Questions about a value, answered by choosing a subject among options."""
    statements: tuple[str, ...]
    """Sentences that state subject and value."""
    vague: tuple[str, ...]
    """Answers that name no value, only the kind of thing: never enough."""
    article: str = ""
    """The article, with its space, that may stand before every value: "the " before "axillary nerve"."""


def capital(text: str) -> str:
    """`text` with a capital, where that is how its first word is written: not in `t(9;22)` or `mTOR`."""
    follows = text[1:2]
    return text if follows == "(" or follows.isupper() else text[:1].upper() + text[1:]


def fill(template: str, subject: str = "", value: str = "") -> str:
    """A template with its places filled."""
    places = {"{s}": subject, "{S}": capital(subject), "{v}": value, "{V}": capital(value)}
    for place, text in places.items():
        template = template.replace(place, text)
    return template


ENGLISH: dict[str, Phrasing] = {
    "adverse_effect": Phrasing(
        asked="the adverse effect",
        questions=(
            "Which adverse effect is characteristic of {s}?",
            "What is a typical adverse effect of {s}?",
            "What is the best-known harm of {s}?",
            "{S}: which adverse effect should the patient be warned of or watched for?",
        ),
        reverse=(
            "Which of these is best known for causing {v}?",
            "{V}: of which of these is this a characteristic adverse effect?",
        ),
        statements=(
            "A characteristic adverse effect of {s} is {v}.",
            "Typically seen with {s}: {v}.",
            "With {s}, one should watch for {v}.",
            "{S} may cause {v}.",
            "The best-known harm of {s} is {v}.",
            "The adverse effect to watch for with {s} is {v}.",
        ),
        vague=("a side effect that can be serious", "harm to one of the organs"),
    ),
    "antidote": Phrasing(
        asked="the antidote",
        questions=(
            "Which antidote is given for {s}?",
            "What is the antidote or specific treatment of {s}?",
            "A patient presents with {s}. Which antidote is indicated?",
            "{S}: which specific treatment is given?",
        ),
        reverse=(
            "The antidote {v} is given for which of these?",
            "{V}: this is the specific treatment of which of these?",
        ),
        statements=(
            "The antidote for {s} is {v}.",
            "One gives {v} for {s}.",
            "For {s}, the specific treatment is {v}.",
            "{S}: the antidote is {v}.",
            "A patient with {s} is given {v}.",
            "The specific treatment of {s} is {v}.",
        ),
        vague=("a drug that counters the poison", "a specific treatment given in hospital"),
    ),
    "artery_territory": Phrasing(
        asked="the artery",
        questions=(
            "Which artery is responsible for the following territory or event: {s}?",
            "{S}: which artery is concerned?",
            "Name the artery that corresponds to this territory or event: {s}.",
            "To which artery does this belong: {s}?",
        ),
        reverse=(
            "Which of these belongs to the {v}?",
            "Which of these territories or events corresponds to the {v}?",
        ),
        statements=(
            "{S}: the artery concerned is the {v}.",
            "It is the {v} in the following: {s}.",
            "This belongs to the {v}: {s}.",
            "{S}: this belongs to the {v}.",
            "The artery responsible for {s} is the {v}.",
            "{S} corresponds to the {v}.",
        ),
        vague=("one of the arteries of that region", "a branch of a larger artery"),
        article="the ",
    ),
    "autoantibody": Phrasing(
        asked="the autoantibody",
        questions=(
            "Which autoantibody is characteristic of {s}?",
            "Which autoantibody supports the diagnosis of {s}?",
            "{S}: which autoantibody do you look for?",
            "Name the autoantibody most closely linked with {s}.",
        ),
        reverse=(
            "For which of these is the following autoantibody characteristic: {v}?",
            "{V}: this autoantibody points to which of these?",
        ),
        statements=(
            "The characteristic autoantibody of {s} is {v}.",
            "In {s}, the autoantibody to look for is {v}.",
            "{V} is the autoantibody linked with {s}.",
            "{S}: the autoantibody is {v}.",
            "The diagnosis of {s} is supported by {v}.",
            "The autoantibody most closely linked with {s} is {v}.",
        ),
        vague=("an autoantibody found in the blood", "an antibody against the body's own tissue"),
    ),
    "chromosome_anomaly": Phrasing(
        asked="the chromosome anomaly",
        questions=(
            "Which chromosome anomaly is characteristic of {s}?",
            "What is the genetic hallmark of {s}?",
            "{S}: which chromosome anomaly is found?",
            "Which cytogenetic finding do you expect in {s}?",
        ),
        reverse=("Which of these is characterised by {v}?", "{V} is the hallmark of which of these?"),
        statements=(
            "{S} is characterised by {v}.",
            "The chromosome anomaly of {s} is {v}.",
            "The hallmark of {s} is {v}.",
            "{S}: the chromosome anomaly found is {v}.",
            "The genetic hallmark of {s} is {v}.",
            "The cytogenetic finding expected in {s} is {v}.",
        ),
        vague=("an anomaly of the chromosomes", "a genetic change seen on the karyotype"),
    ),
    "cranial_nerve_function": Phrasing(
        asked="the cranial nerve",
        questions=(
            "Which cranial nerve is concerned: {s}?",
            "{S}: to which cranial nerve does this belong?",
            "Name the cranial nerve that accounts for this: {s}.",
            "This function or sign belongs to one cranial nerve: {s}. Which one?",
        ),
        reverse=("Which of these belongs to the {v}?", "Which of these functions or signs is that of the {v}?"),
        statements=(
            "{S}: this belongs to the {v}.",
            "The {v} accounts for this: {s}.",
            "The cranial nerve concerned is the {v} for the following: {s}.",
            "{S}: the cranial nerve concerned is the {v}.",
            "The cranial nerve that accounts for {s} is the {v}.",
            "{S} is a matter of the {v}.",
        ),
        vague=("one of the cranial nerves", "a nerve that leaves the skull"),
        article="the ",
    ),
    "drug_indication": Phrasing(
        asked="the indication",
        questions=(
            "What is a recognised indication of {s}?",
            "What is {s} mainly used for?",
            "{S}: what is its established use?",
            "In which condition is {s} an established treatment?",
        ),
        reverse=("Which of these drugs is used for {v}?", "{V}: which of these is an established treatment?"),
        statements=(
            "{S} is used for {v}.",
            "A recognised indication of {s} is {v}.",
            "{V} is an established indication of {s}.",
            "{S}: its established use is {v}.",
            "{S} is an established treatment of {v}.",
            "The condition in which {s} is given is {v}.",
        ),
        vague=("a disease that calls for treatment", "a condition treated by a specialist"),
    ),
    "drug_mechanism": Phrasing(
        asked="the mechanism",
        questions=(
            "By which mechanism does {s} act?",
            "What is the mechanism of action of {s}?",
            "How does {s} work?",
            "{S}: what is its main molecular action?",
        ),
        reverse=("Which of these drugs acts by {v}?", "{V} is the mechanism of action of which drug?"),
        statements=(
            "{S} acts by {v}.",
            "The mechanism of {s} is {v}.",
            "{V} is how {s} works.",
            "{S} works by {v}.",
            "The mechanism of action of {s} is {v}.",
            "{S}: its main molecular action is {v}.",
        ),
        vague=("an effect on a molecule of the cell", "an action on a receptor, a channel or an enzyme"),
    ),
    "ecg_finding": Phrasing(
        asked="the diagnosis",
        questions=(
            "The ECG shows the following: {s}. What does it suggest?",
            "Which diagnosis does this ECG finding suggest: {s}?",
            "{S} on the ECG: what is the most likely diagnosis?",
            "What is the interpretation of this ECG pattern: {s}?",
        ),
        reverse=("Which ECG finding suggests {v}?", "{V}: which of these ECG findings is typical?"),
        statements=(
            "This ECG finding suggests {v}: {s}.",
            "{S} on the ECG points to {v}.",
            "{V} is suggested by this finding: {s}.",
            "{S}: this ECG finding suggests {v}.",
            "{S} on the ECG: the most likely diagnosis is {v}.",
            "The interpretation of {s} is {v}.",
        ),
        vague=("an abnormality of the heart or the blood", "something abnormal on the ECG"),
    ),
    "embryonic_origin": Phrasing(
        asked="the embryonic origin",
        questions=(
            "Which embryonic structure gives rise to the {s}?",
            "What is the embryonic origin of the {s}?",
            "{S}: from which embryonic structure?",
            "Name the embryonic precursor of the {s}.",
        ),
        reverse=("Which of these derives from the {v}?", "From the {v} comes which of these?"),
        statements=(
            "The embryonic origin of the {s} is the {v}.",
            "From the {v} comes the {s}.",
            "{S}: the embryonic origin is the {v}.",
            "The {s} derives from the {v}.",
            "The embryonic precursor of the {s} is the {v}.",
            "The structure that gives rise to the {s} is the {v}.",
        ),
        vague=("a structure of the embryo", "one of the early embryonic tissues"),
        article="the ",
    ),
    "enzyme_defect": Phrasing(
        asked="the enzyme",
        questions=(
            "Which enzyme is deficient in {s}?",
            "Deficiency of which enzyme causes {s}?",
            "{S}: which enzyme is defective?",
            "What is the enzyme defect of {s}?",
        ),
        reverse=("Deficiency of {v} causes which of these?", "Which of these is due to a defect of {v}?"),
        statements=(
            "{S} is due to deficiency of {v}.",
            "The enzyme that is deficient in {s} is {v}.",
            "{V} is the defective enzyme of {s}.",
            "{S}: the defective enzyme is {v}.",
            "The enzyme defect of {s} is {v}.",
            "In {s}, the deficient enzyme is {v}.",
        ),
        vague=("an enzyme of metabolism", "an enzyme that does not work"),
    ),
    "first_line_test": Phrasing(
        asked="the test",
        questions=(
            "Which test is the usual first choice in this situation: {s}?",
            "{S}: which investigation do you request?",
            "Which investigation is the standard choice here: {s}?",
            "Situation: {s}. Which test is most appropriate?",
        ),
        reverse=(
            "For which of these is {v} the usual test of choice?",
            "{V} is the standard investigation in which of these situations?",
        ),
        statements=(
            "The test of choice is {v} in this situation: {s}.",
            "{S}: the standard investigation is {v}.",
            "{V} is requested in this situation: {s}.",
            "{S}: the investigation to request is {v}.",
            "In {s}, the usual first choice is {v}.",
            "Situation: {s}. The most appropriate test is {v}.",
        ),
        vague=("a test ordered by the physician", "a suitable investigation"),
    ),
    "hormone_gland": Phrasing(
        asked="the source",
        questions=(
            "Which gland or cell type is the main source of {s}?",
            "Where is {s} mainly produced?",
            "{S}: by which gland or cells is it secreted?",
            "What secretes {s}?",
        ),
        reverse=("Which of these is secreted by the {v}?", "Which of these comes mainly from the {v}?"),
        statements=(
            "{S}: the main source is the {v}.",
            "Secretion of {s} takes place in the {v}.",
            "The source of {s} is the {v}.",
            "{S} is secreted by the {v}.",
            "{S} is mainly produced in the {v}.",
            "The main source of {s} is the {v}.",
        ),
        vague=("cells that secrete it into the blood", "an endocrine tissue"),
        article="the ",
    ),
    "inheritance": Phrasing(
        asked="the inheritance",
        questions=(
            "What is the mode of inheritance of {s}?",
            "How is {s} inherited?",
            "{S}: which pattern of inheritance?",
            "Which pattern of inheritance does {s} typically follow?",
        ),
        reverse=("Which of these shows {v} inheritance?", "{V} inheritance is typical of which of these?"),
        statements=(
            "{S} shows {v} inheritance.",
            "The inheritance of {s} is {v}.",
            "Inheritance is {v} in {s}.",
            "{S}: the pattern of inheritance is {v}.",
            "{S} is inherited as {v}.",
            "The mode of inheritance of {s} is {v}.",
        ),
        vague=("it has to do with the genes or the family history", "a known pattern of inheritance"),
    ),
    "nerve_muscle": Phrasing(
        asked="the nerve",
        questions=(
            "Which nerve supplies the {s}?",
            "What is the motor nerve of the {s}?",
            "{S}: by which nerve is this muscle supplied?",
            "Paralysis of the {s} points to a lesion of which nerve?",
        ),
        reverse=("Which of these muscles is supplied by the {v}?", "The {v} is the motor nerve of which muscle?"),
        statements=(
            "The {s} is supplied by the {v}.",
            "The motor nerve of the {s} is the {v}.",
            "The {v} supplies the {s}.",
            "The nerve that supplies the {s} is the {v}.",
            "{S}: this muscle is supplied by the {v}.",
            "Paralysis of the {s} points to the {v}.",
        ),
        vague=("one of the motor nerves", "a nerve that carries motor fibres"),
        article="the ",
    ),
    "organism_disease": Phrasing(
        asked="the organism",
        questions=(
            "Which organism causes {s}?",
            "What is the usual cause of {s}?",
            "{S}: which organism is responsible?",
            "Name the pathogen behind {s}.",
        ),
        reverse=("Which of these is caused by {v}?", "{V} is the usual cause of which of these?"),
        statements=(
            "{S} is caused by {v}.",
            "The organism behind {s} is {v}.",
            "{V} is responsible for {s}.",
            "The usual cause of {s} is {v}.",
            "{S}: the organism responsible is {v}.",
            "The pathogen behind {s} is {v}.",
        ),
        vague=("an infectious agent", "a germ or parasite"),
    ),
    "sign_disease": Phrasing(
        asked="the diagnosis",
        questions=(
            "Which diagnosis does this finding suggest: {s}?",
            "{S}: what is the most likely diagnosis?",
            "Of which disease is this finding typical: {s}?",
            "A patient shows the following: {s}. What does it point to?",
        ),
        reverse=("Which of these findings is typical of {v}?", "{V}: which of these findings points to it?"),
        statements=(
            "This finding points to {v}: {s}.",
            "{S} is typical of {v}.",
            "{V} is the diagnosis suggested by this finding: {s}.",
            "{S} points to {v}.",
            "{S} suggests {v}.",
            "{S}: the most likely diagnosis is {v}.",
        ),
        vague=("a disease that needs further tests", "an illness known from textbooks"),
    ),
    "storage_pathology_cell": Phrasing(
        asked="the microscopic finding",
        questions=(
            "Which microscopic finding is characteristic of {s}?",
            "What does the pathologist or haematologist typically see in {s}?",
            "{S}: which histological or cytological hallmark?",
            "Which finding under the microscope points to {s}?",
        ),
        reverse=("Which of these typically shows {v}?", "{V}: of which of these is this finding characteristic?"),
        statements=(
            "The microscopic hallmark of {s} is {v}.",
            "Under the microscope, one finds {v} in {s}.",
            "The characteristic finding is {v} in {s}.",
            "{S} typically shows {v}.",
            "In {s}, the pathologist typically sees {v}.",
            "{S}: the microscopic hallmark is {v}.",
        ),
        vague=("a change seen under the microscope", "abnormal tissue or cells"),
    ),
    "tumour_marker": Phrasing(
        asked="the marker",
        questions=(
            "Which marker is most useful in {s}?",
            "Which substance is measured as the marker of {s}?",
            "{S}: which marker is followed?",
            "Name the marker most closely linked with {s}.",
        ),
        reverse=(
            "In which of these would you measure {v} as the marker?",
            "{V}: with which of these is this marker most closely linked?",
        ),
        statements=(
            "The marker of {s} is {v}.",
            "In {s}, one measures {v}.",
            "The marker to follow in {s} is {v}.",
            "{S}: the marker followed is {v}.",
            "The substance measured as the marker of {s} is {v}.",
            "The marker most closely linked with {s} is {v}.",
        ),
        vague=("a substance measured in the laboratory", "a blood or urine test"),
    ),
    "vaccine_type": Phrasing(
        asked="the type of vaccine",
        questions=(
            "What type of vaccine is the {s}?",
            "To which type does the {s} belong?",
            "{S}: which vaccine technology?",
            "On which vaccine technology is the {s} based?",
        ),
        reverse=("Which of these vaccines is of the {v} type?", "{V}: which of these vaccines is of this type?"),
        statements=(
            "The {s} is of the {v} type.",
            "The type of the {s} is {v}.",
            "Type: {v}, for the {s}.",
            "{S}: the vaccine technology is {v}.",
            "The {s} belongs to the type {v}.",
            "The {s} is based on this technology: {v}.",
        ),
        vague=("one of the known kinds of vaccine", "a vaccine that protects by immunity"),
    ),
    "vitamin_deficiency": Phrasing(
        asked="the vitamin",
        questions=(
            "Deficiency of which vitamin causes {s}?",
            "Lack of which vitamin explains {s}?",
            "{S}: which vitamin is lacking?",
            "Which vitamin deficiency lies behind {s}?",
        ),
        reverse=("Deficiency of {v} explains which of these?", "Which of these is due to lack of {v}?"),
        statements=(
            "{S} is due to lack of {v}.",
            "The vitamin that is lacking in {s} is {v}.",
            "Deficiency of {v} explains {s}.",
            "{S}: the vitamin that is lacking is {v}.",
            "The vitamin whose deficiency causes {s} is {v}.",
            "{S} is caused by deficiency of {v}.",
        ),
        vague=("one of the vitamins", "a nutrient missing from the diet"),
    ),
}

FRENCH: dict[str, Phrasing] = {
    "adverse_effect": Phrasing(
        asked="l'effet indésirable",
        questions=(
            "Quel effet indésirable est caractéristique du traitement suivant : {s} ?",
            "{S} : quel effet indésirable faut-il connaître ?",
            "De quel effet indésirable faut-il se méfier avec le traitement suivant : {s} ?",
        ),
        reverse=(
            "Lequel de ces traitements expose particulièrement à l'effet suivant : {v} ?",
            "{V} : quel est le traitement en cause ?",
        ),
        statements=(
            "{S} : l'effet indésirable à connaître est le suivant : {v}.",
            "{V} : voilà l'effet indésirable caractéristique dans ce cas : {s}.",
        ),
        vague=("un effet indésirable parfois grave", "une atteinte d'un organe"),
    ),
    "antidote": Phrasing(
        asked="l'antidote",
        questions=(
            "Quel antidote donne-t-on dans la situation suivante : {s} ?",
            "{S} : quel est le traitement spécifique ?",
            "Quel est l'antidote à utiliser dans ce cas : {s} ?",
        ),
        reverse=(
            "Dans laquelle de ces situations donne-t-on l'antidote suivant : {v} ?",
            "{V} : de quelle situation est-ce le traitement spécifique ?",
        ),
        statements=(
            "{S} : l'antidote est le suivant : {v}.",
            "Le traitement spécifique est : {v}, dans la situation suivante : {s}.",
        ),
        vague=("un médicament qui s'oppose au toxique", "un traitement spécifique donné à l'hôpital"),
    ),
    "artery_territory": Phrasing(
        asked="l'artère",
        questions=(
            "Quelle artère correspond au territoire ou à l'événement suivant : {s} ?",
            "{S} : quelle est l'artère concernée ?",
            "De quelle artère dépend ce territoire ou cet événement : {s} ?",
        ),
        reverse=(
            "Lequel de ces territoires ou événements dépend de l'artère suivante : {v} ?",
            "{V} : quel territoire ou événement lui correspond ?",
        ),
        statements=(
            "{S} : l'artère concernée est la suivante : {v}.",
            "C'est le territoire de l'artère suivante : {v} (il s'agit de : {s}).",
        ),
        vague=("une des artères de la région", "une branche d'une artère plus grosse"),
    ),
    "autoantibody": Phrasing(
        asked="l'auto-anticorps",
        questions=(
            "Quel auto-anticorps est caractéristique de l'affection suivante : {s} ?",
            "{S} : quel auto-anticorps recherche-t-on ?",
            "Quel auto-anticorps oriente vers ce diagnostic : {s} ?",
        ),
        reverse=(
            "De laquelle de ces affections l'auto-anticorps suivant est-il caractéristique : {v} ?",
            "{V} : vers quelle affection cet auto-anticorps oriente-t-il ?",
        ),
        statements=(
            "{S} : l'auto-anticorps caractéristique est le suivant : {v}.",
            "On recherche l'auto-anticorps suivant : {v}, devant ce tableau : {s}.",
        ),
        vague=("un auto-anticorps présent dans le sang", "un anticorps dirigé contre un constituant de l'organisme"),
    ),
    "chromosome_anomaly": Phrasing(
        asked="l'anomalie chromosomique",
        questions=(
            "Quelle anomalie chromosomique est caractéristique de l'affection suivante : {s} ?",
            "{S} : quelle anomalie chromosomique trouve-t-on ?",
            "Quelle anomalie cytogénétique attend-on dans ce cas : {s} ?",
        ),
        reverse=(
            "Laquelle de ces affections est caractérisée par l'anomalie suivante : {v} ?",
            "{V} : à quelle affection cette anomalie correspond-elle ?",
        ),
        statements=(
            "{S} : l'anomalie chromosomique est la suivante : {v}.",
            "On trouve l'anomalie suivante : {v}, dans cette affection : {s}.",
        ),
        vague=("une anomalie des chromosomes", "une modification génétique visible au caryotype"),
    ),
    "cranial_nerve_function": Phrasing(
        asked="le nerf crânien",
        questions=(
            "Quel nerf crânien est concerné par la fonction ou le signe suivant : {s} ?",
            "{S} : de quel nerf crânien s'agit-il ?",
            "Quel nerf crânien explique ceci : {s} ?",
        ),
        reverse=(
            "Laquelle de ces fonctions, ou lequel de ces signes, relève du {v} ?",
            "{V} : quelle fonction ou quel signe lui correspond ?",
        ),
        statements=(
            "{S} : cela relève du {v}.",
            "Le nerf crânien concerné est le {v} pour ceci : {s}.",
        ),
        vague=("l'un des nerfs crâniens", "un nerf qui sort du crâne"),
        article="le ",
    ),
    "drug_indication": Phrasing(
        asked="l'indication",
        questions=(
            "Quelle est l'indication reconnue du médicament suivant : {s} ?",
            "{S} : dans quelle indication ce traitement est-il utilisé ?",
            "Contre quelle affection, ou dans quel but, utilise-t-on ce traitement : {s} ?",
        ),
        reverse=(
            "Lequel de ces traitements a l'indication suivante : {v} ?",
            "{V} : lequel de ces traitements utilise-t-on ?",
        ),
        statements=(
            "{S} : l'indication est la suivante : {v}.",
            "L'indication reconnue est : {v}, pour le traitement suivant : {s}.",
        ),
        vague=("une maladie qu'il faut traiter", "une affection suivie par un spécialiste"),
    ),
    "drug_mechanism": Phrasing(
        asked="le mécanisme",
        questions=(
            "Quel est le mécanisme d'action du médicament suivant : {s} ?",
            "{S} : par quel mécanisme ce médicament agit-il ?",
            "Comment agit ce médicament : {s} ?",
        ),
        reverse=(
            "Lequel de ces médicaments agit par le mécanisme suivant : {v} ?",
            "{V} : de quel médicament est-ce le mécanisme d'action ?",
        ),
        statements=(
            "{S} : le mécanisme d'action est le suivant : {v}.",
            "Ce médicament ({s}) agit par le mécanisme suivant : {v}.",
        ),
        vague=("un effet sur une molécule de la cellule", "une action sur un récepteur, un canal ou une enzyme"),
    ),
    "ecg_finding": Phrasing(
        asked="le diagnostic",
        questions=(
            "Quel diagnostic évoque cet aspect de l'ECG : {s} ?",
            "{S} à l'ECG : quel diagnostic évoquez-vous ?",
            "L'ECG montre l'aspect suivant : {s}. Qu'en concluez-vous ?",
        ),
        reverse=(
            "Lequel de ces aspects de l'ECG évoque le diagnostic suivant : {v} ?",
            "{V} : quel aspect de l'ECG est typique ?",
        ),
        statements=(
            "{S} à l'ECG : le diagnostic évoqué est le suivant : {v}.",
            "Le diagnostic est : {v}, devant cet aspect de l'ECG : {s}.",
        ),
        vague=("une anomalie du cœur ou du sang", "quelque chose d'anormal à l'ECG"),
    ),
    "embryonic_origin": Phrasing(
        asked="l'origine embryonnaire",
        questions=(
            "Quelle est l'origine embryonnaire de la structure suivante : {s} ?",
            "{S} : quelle en est la structure embryonnaire d'origine ?",
            "De quelle structure embryonnaire dérive ceci : {s} ?",
        ),
        reverse=(
            "Laquelle de ces structures a l'origine embryonnaire suivante : {v} ?",
            "{V} : que devient cette structure embryonnaire ?",
        ),
        statements=(
            "{S} : l'origine embryonnaire est la suivante : {v}.",
            "La structure embryonnaire est : {v}, à l'origine de ceci : {s}.",
        ),
        vague=("une structure de l'embryon", "un tissu embryonnaire précoce"),
    ),
    "enzyme_defect": Phrasing(
        asked="l'enzyme",
        questions=(
            "Quelle enzyme est déficiente dans l'affection suivante : {s} ?",
            "{S} : quelle est l'enzyme en cause ?",
            "Le déficit de quelle enzyme explique cette affection : {s} ?",
        ),
        reverse=(
            "Laquelle de ces affections est due au déficit de l'enzyme suivante : {v} ?",
            "{V} : quelle affection résulte du déficit de cette enzyme ?",
        ),
        statements=(
            "{S} : l'enzyme déficiente est la suivante : {v}.",
            "Le déficit porte sur l'enzyme suivante : {v}, dans cette affection : {s}.",
        ),
        vague=("une enzyme du métabolisme", "une enzyme qui ne fonctionne pas"),
    ),
    "first_line_test": Phrasing(
        asked="l'examen",
        questions=(
            "Quel examen demande-t-on habituellement dans la situation suivante : {s} ?",
            "{S} : quel est l'examen de première intention ?",
            "Situation : {s}. Quel examen est le plus approprié ?",
        ),
        reverse=(
            "Dans laquelle de ces situations l'examen suivant est-il le plus approprié : {v} ?",
            "{V} : dans quelle situation est-ce l'examen de première intention ?",
        ),
        statements=(
            "{S} : l'examen à demander est le suivant : {v}.",
            "L'examen approprié est : {v}, dans la situation suivante : {s}.",
        ),
        vague=("un examen prescrit par le médecin", "un examen adapté"),
    ),
    "hormone_gland": Phrasing(
        asked="la source",
        questions=(
            "Quelle est la principale source de l'hormone ou du facteur suivant : {s} ?",
            "{S} : quelle glande ou quelles cellules en sont la source ?",
            "Par quelle glande ou par quelles cellules cette substance est-elle sécrétée : {s} ?",
        ),
        reverse=(
            "Laquelle de ces substances a la source suivante : {v} ?",
            "{V} : quelle substance y est principalement produite ?",
        ),
        statements=(
            "{S} : la source principale est la suivante : {v}.",
            "La source est : {v}, pour la substance suivante : {s}.",
        ),
        vague=("des cellules qui la sécrètent dans le sang", "un tissu endocrine"),
    ),
    "inheritance": Phrasing(
        asked="la transmission",
        questions=(
            "Quel est le mode de transmission de l'affection suivante : {s} ?",
            "{S} : quelle est la transmission ?",
            "Comment se transmet cette affection : {s} ?",
        ),
        reverse=(
            "Laquelle de ces affections a une transmission {v} ?",
            "Transmission {v} : de quelle affection est-ce le mode habituel ?",
        ),
        statements=(
            "{S} : la transmission est {v}.",
            "La transmission est {v} dans l'affection suivante : {s}.",
        ),
        vague=("cela tient aux gènes ou aux antécédents familiaux", "un mode de transmission connu"),
    ),
    "nerve_muscle": Phrasing(
        asked="le nerf",
        questions=(
            "Quel nerf innerve le {s} ?",
            "{S} : quel est son nerf moteur ?",
            "Par quel nerf le {s} est-il innervé ?",
        ),
        reverse=(
            "Lequel de ces muscles est innervé par le {v} ?",
            "{V} : quel muscle innerve-t-il ?",
        ),
        statements=(
            "Le {s} est innervé par le {v}.",
            "Le nerf moteur est le {v} pour ce muscle : {s}.",
            "Le {v} innerve le {s}.",
        ),
        vague=("un des nerfs moteurs", "un nerf qui contient des fibres motrices"),
        article="le ",
    ),
    "organism_disease": Phrasing(
        asked="l'agent responsable",
        questions=(
            "Quel agent est responsable de l'affection suivante : {s} ?",
            "{S} : quel est l'agent en cause ?",
            "Quel est l'agent pathogène habituel dans ce tableau : {s} ?",
        ),
        reverse=(
            "De laquelle de ces affections l'agent suivant est-il responsable : {v} ?",
            "{V} : quelle affection cet agent cause-t-il ?",
        ),
        statements=(
            "{S} : l'agent responsable est le suivant : {v}.",
            "L'agent en cause est : {v}, dans ce tableau : {s}.",
        ),
        vague=("un agent infectieux", "un germe ou un parasite"),
    ),
    "sign_disease": Phrasing(
        asked="le diagnostic",
        questions=(
            "Quel diagnostic évoque le signe suivant : {s} ?",
            "{S} : quel est le diagnostic le plus probable ?",
            "De quelle affection ce signe est-il typique : {s} ?",
        ),
        reverse=(
            "Lequel de ces signes est typique de l'affection suivante : {v} ?",
            "{V} : quel signe y fait penser ?",
        ),
        statements=(
            "{S} : le diagnostic évoqué est le suivant : {v}.",
            "Le diagnostic est : {v}, devant ce signe : {s}.",
        ),
        vague=("une maladie qui demande des examens", "une affection décrite dans les manuels"),
    ),
    "storage_pathology_cell": Phrasing(
        asked="l'aspect microscopique",
        questions=(
            "Quel aspect microscopique est caractéristique de la situation suivante : {s} ?",
            "{S} : que voit-on typiquement au microscope ?",
            "Quelle lésion histologique ou cytologique attend-on dans ce cas : {s} ?",
        ),
        reverse=(
            "Dans laquelle de ces situations trouve-t-on typiquement ceci : {v} ?",
            "{V} : de quelle situation cet aspect est-il caractéristique ?",
        ),
        statements=(
            "{S} : l'aspect microscopique caractéristique est le suivant : {v}.",
            "Au microscope, on trouve : {v}, dans la situation suivante : {s}.",
        ),
        vague=("une modification visible au microscope", "un tissu ou des cellules anormaux"),
    ),
    "tumour_marker": Phrasing(
        asked="le marqueur",
        questions=(
            "Quel marqueur est le plus utile dans l'affection suivante : {s} ?",
            "{S} : quel marqueur dose-t-on ?",
            "Quel marqueur suit-on dans ce cas : {s} ?",
        ),
        reverse=(
            "Dans laquelle de ces affections dose-t-on le marqueur suivant : {v} ?",
            "{V} : à quelle affection ce marqueur est-il lié ?",
        ),
        statements=(
            "{S} : le marqueur est le suivant : {v}.",
            "On dose le marqueur suivant : {v}, dans cette affection : {s}.",
        ),
        vague=("une substance dosée au laboratoire", "un dosage sanguin ou urinaire"),
    ),
    "vaccine_type": Phrasing(
        asked="le type de vaccin",
        questions=(
            "De quel type est le {s} ?",
            "{S} : de quel type de vaccin s'agit-il ?",
            "Sur quelle technologie repose le {s} ?",
        ),
        reverse=(
            "Lequel de ces vaccins est du type suivant : {v} ?",
            "{V} : lequel de ces vaccins est de ce type ?",
        ),
        statements=(
            "Le {s} est du type suivant : {v}.",
            "Type du vaccin : {v} (il s'agit de : {s}).",
        ),
        vague=("un des types de vaccin connus", "un vaccin qui protège par l'immunité"),
    ),
    "vitamin_deficiency": Phrasing(
        asked="la vitamine",
        questions=(
            "Quelle carence vitaminique explique ceci : {s} ?",
            "{S} : quelle vitamine manque ?",
            "Le manque de quelle vitamine est en cause : {s} ?",
        ),
        reverse=(
            "Lequel de ces tableaux est dû à la carence suivante : {v} ?",
            "{V} : que provoque un manque de cette vitamine ?",
        ),
        statements=(
            "{S} : la vitamine qui manque est la suivante : {v}.",
            "La carence porte sur : {v}, dans ce tableau : {s}.",
        ),
        vague=("une des vitamines", "un nutriment qui manque dans l'alimentation"),
    ),
}

PHRASINGS: dict[Language, dict[str, Phrasing]] = {"en": ENGLISH, "fr": FRENCH}

VALUE_FIRST: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "adverse_effect": ("The adverse effect {v} is typical of {s}.", "One sees {v} with {s}."),
        "antidote": ("The antidote {v} is for {s}.", "One gives {v} for {s}."),
        "artery_territory": ("It is the {v} in the following: {s}.", "This belongs to the {v}: {s}."),
        "autoantibody": ("The autoantibody {v} points to {s}.", "Finding {v} speaks for {s}."),
        "chromosome_anomaly": ("The anomaly {v} is the hallmark of {s}.", "One finds {v} in {s}."),
        "cranial_nerve_function": (
            "The {v} accounts for this: {s}.",
            "The cranial nerve concerned is the {v} for the following: {s}.",
        ),
        "drug_indication": ("The indication {v} is one of {s}.", "Given for {v}: {s}."),
        "drug_mechanism": ("The mechanism {v} is that of {s}.", "By {v} acts {s}."),
        "ecg_finding": ("This ECG finding suggests {v}: {s}.", "The ECG sign of {v} is this: {s}."),
        "embryonic_origin": ("From the {v} comes the {s}.", "It is the {v} that gives rise to the {s}."),
        "enzyme_defect": ("Deficiency of {v} causes {s}.", "A defect of {v} is behind {s}."),
        "first_line_test": (
            "The test of choice is {v} in this situation: {s}.",
            "One requests {v} in this situation: {s}.",
        ),
        "hormone_gland": ("From the {v} comes {s}.", "The source is the {v} in the case of {s}."),
        "inheritance": ("Inheritance is {v} in {s}.", "The pattern {v} is that of {s}."),
        "nerve_muscle": ("The {v} supplies the {s}.", "The {v} is the motor nerve of the {s}."),
        "organism_disease": ("The organism {v} is responsible for {s}.", "The agent {v} causes {s}."),
        "sign_disease": ("This finding points to {v}: {s}.", "A typical finding of {v} is this: {s}."),
        "storage_pathology_cell": (
            "Under the microscope, one finds {v} in {s}.",
            "The characteristic finding is {v} in {s}.",
        ),
        "tumour_marker": ("The marker {v} is that of {s}.", "One measures {v} in {s}."),
        "vaccine_type": ("Of the {v} type is the {s}.", "Type: {v}, for the {s}."),
        "vitamin_deficiency": ("Deficiency of {v} explains {s}.", "Lack of {v} leads to {s}."),
    },
    "fr": {
        "adverse_effect": ("L'effet indésirable suivant : {v}, est celui de ce traitement : {s}.",),
        "antidote": ("Le traitement spécifique est : {v}, dans la situation suivante : {s}.",),
        "artery_territory": ("C'est le territoire de l'artère suivante : {v} (il s'agit de : {s}).",),
        "autoantibody": ("On recherche l'auto-anticorps suivant : {v}, devant ce tableau : {s}.",),
        "chromosome_anomaly": ("On trouve l'anomalie suivante : {v}, dans cette affection : {s}.",),
        "cranial_nerve_function": ("Le nerf crânien concerné est le {v} pour ceci : {s}.",),
        "drug_indication": ("L'indication reconnue est : {v}, pour le traitement suivant : {s}.",),
        "drug_mechanism": ("Le mécanisme suivant : {v}, est celui de ce médicament : {s}.",),
        "ecg_finding": ("Le diagnostic est : {v}, devant cet aspect de l'ECG : {s}.",),
        "embryonic_origin": ("La structure embryonnaire est : {v}, à l'origine de ceci : {s}.",),
        "enzyme_defect": ("Le déficit porte sur l'enzyme suivante : {v}, dans cette affection : {s}.",),
        "first_line_test": ("L'examen approprié est : {v}, dans la situation suivante : {s}.",),
        "hormone_gland": ("La source est : {v}, pour la substance suivante : {s}.",),
        "inheritance": ("La transmission est {v} dans l'affection suivante : {s}.",),
        "nerve_muscle": ("Le {v} innerve le {s}.",),
        "organism_disease": ("L'agent en cause est : {v}, dans ce tableau : {s}.",),
        "sign_disease": ("Le diagnostic est : {v}, devant ce signe : {s}.",),
        "storage_pathology_cell": ("Au microscope, on trouve : {v}, dans la situation suivante : {s}.",),
        "tumour_marker": ("On dose le marqueur suivant : {v}, dans cette affection : {s}.",),
        "vaccine_type": ("Type du vaccin : {v} (il s'agit de : {s}).",),
        "vitamin_deficiency": ("La carence porte sur : {v}, dans ce tableau : {s}.",),
    },
}
"""Sentences that name the value and then the subject, both as inside a sentence: so one comes from the value that a
reverse question names to a subject that has it."""
