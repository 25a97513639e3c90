"""The statistics once more, slowly and from the textbook's own words: loops over rows and pairs of rows, nothing shared
with the package. `None` is what a rater did not say."""

import math
from itertools import combinations, permutations


def recall(gold, said, label):
    rows = [s for g, s in zip(gold, said, strict=True) if g == label]
    return sum(s == label for s in rows) / len(rows) if rows else math.nan


def f1(gold, said, label):
    tp = sum(g == label and s == label for g, s in zip(gold, said, strict=True))
    fp = sum(g != label and s == label for g, s in zip(gold, said, strict=True))
    fn = sum(g == label and s != label for g, s in zip(gold, said, strict=True))
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan


def mcc(gold, said):
    """Gorodkin's R_K as a correlation of indicator vectors, one per category."""
    categories = sorted({*gold, *said}, key=str)
    n = len(gold)
    cov_xy = cov_xx = cov_yy = 0.0
    for category in categories:
        x = [float(g == category) for g in gold]
        y = [float(s == category) for s in said]
        mean_x, mean_y = sum(x) / n, sum(y) / n
        cov_xy += sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
        cov_xx += sum((a - mean_x) ** 2 for a in x)
        cov_yy += sum((b - mean_y) ** 2 for b in y)
    if len(set(gold)) < 2 or len(set(said)) < 2:
        return math.nan
    return cov_xy / math.sqrt(cov_xx * cov_yy)


def agreement_weight(i, j, n_labels, weights):
    if weights == "identity":
        return float(i == j)
    gap = abs(i - j) / (n_labels - 1)
    return 1 - (gap if weights == "linear" else gap**2)


def kappa(a, b, n_labels, weights="identity"):
    """Observed against all n^2 pairings of one rater's labels with the other's."""
    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if not pairs:
        return math.nan
    w = lambda i, j: agreement_weight(i, j, n_labels, weights)  # noqa: E731
    observed = sum(w(x, y) for x, y in pairs) / len(pairs)
    expected = sum(w(x, y) for x, _ in pairs for _, y in pairs) / len(pairs) ** 2
    if len({x for pair in pairs for x in pair}) == 1:
        return math.nan
    return (observed - expected) / (1 - expected)


def gwet(units, n_labels, weights="identity"):
    """units: lists of the labels that a unit was given, gaps left out."""
    w = lambda i, j: agreement_weight(i, j, n_labels, weights)  # noqa: E731
    pairable = [unit for unit in units if len(unit) >= 2]
    if not pairable:
        return math.nan
    agreed = sum(
        sum(w(x, y) for x, y in permutations(unit, 2)) / (len(unit) * (len(unit) - 1)) for unit in pairable
    ) / len(pairable)
    rated = [unit for unit in units if unit]
    share = [sum(unit.count(k) / len(unit) for unit in rated) / len(rated) for k in range(n_labels)]
    total = sum(w(i, j) for i in range(n_labels) for j in range(n_labels))
    chance = total / (n_labels * (n_labels - 1)) * sum(p * (1 - p) for p in share)
    return (agreed - chance) / (1 - chance)


def alpha(units, n_labels, scale="nominal"):
    """1 - observed / expected disagreement over pairs of values within units and over all pairs of values."""
    units = [unit for unit in units if len(unit) >= 2]
    values = [value for unit in units for value in unit]
    if len(set(values)) < 2:
        return math.nan

    def distance(c, k):
        if scale == "nominal":
            return float(c != k)
        if scale == "interval":
            return float((c - k) ** 2)
        low, high = min(c, k), max(c, k)
        between = sum(values.count(g) for g in range(low, high + 1))
        return (between - (values.count(low) + values.count(high)) / 2) ** 2

    n = len(values)
    table = [[distance(c, k) for k in range(n_labels)] for c in range(n_labels)]
    observed = sum(sum(table[c][k] for c, k in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / n
    expected = sum(table[c][k] for c, k in permutations(values, 2)) / (n * (n - 1))
    return 1 - observed / expected


def pearson(x, y):
    if len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    xy = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return xy / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def ranks(values):
    return [sum(other < v for other in values) + (sum(other == v for other in values) + 1) / 2 for v in values]


def spearman(x, y):
    return pearson(ranks(x), ranks(y))


def kendall_tau_b(x, y):
    concordant = discordant = only_x = only_y = 0
    for (a, b), (c, d) in combinations(zip(x, y, strict=True), 2):
        if a == c and b == d:
            continue
        if a == c:
            only_y += 1
        elif b == d:
            only_x += 1
        elif (a < c) == (b < d):
            concordant += 1
        else:
            discordant += 1
    decided = concordant + discordant
    scale = math.sqrt((decided + only_x) * (decided + only_y))
    return (concordant - discordant) / scale if scale else math.nan


def icc(table):
    """Shrout & Fleiss from the two-way analysis of variance, term by term. table: cases of k ratings each."""
    n = len(table)
    k = len(table[0]) if table else 0
    if n < 2 or k < 2 or len({value for row in table for value in row}) < 2:
        return (math.nan,) * 3
    grand = sum(map(sum, table)) / (n * k)
    case_mean = [sum(row) / k for row in table]
    rater_mean = [sum(row[j] for row in table) / n for j in range(k)]
    bms = k * sum((m - grand) ** 2 for m in case_mean) / (n - 1)
    wms = sum((v - case_mean[i]) ** 2 for i, row in enumerate(table) for v in row) / (n * (k - 1))
    jms = n * sum((m - grand) ** 2 for m in rater_mean) / (k - 1)
    residual = [v - case_mean[i] - rater_mean[j] + grand for i, row in enumerate(table) for j, v in enumerate(row)]
    ems = sum(r**2 for r in residual) / ((n - 1) * (k - 1))

    def ratio(top, bottom):
        return top / bottom if bottom > 1e-12 else math.nan

    return (
        ratio(bms - wms, bms + (k - 1) * wms),
        ratio(bms - ems, bms + (k - 1) * ems + k * (jms - ems) / n),
        ratio(bms - ems, bms + (k - 1) * ems),
    )


def agreement_statistics(gold, said, n_labels, positive):
    """Every statistic by name. gold: codes; said: codes or None for what could not be read."""
    read = [(g, s) for g, s in zip(gold, said, strict=True) if s is not None]
    x, y = [g for g, _ in read], [s for _, s in read]
    units = [[g, s] for g, s in read]
    occurring = sorted({*gold, *y})
    golds = sorted(set(gold))
    found = {
        "accuracy": sum(g == s for g, s in zip(gold, said, strict=True)) / len(gold),
        "balanced_accuracy": sum(recall(gold, said, k) for k in golds) / len(golds),
        "macro_f1": sum(f1(gold, said, k) for k in occurring) / len(occurring),
        "weighted_f1": sum(gold.count(k) * f1(gold, said, k) for k in golds) / len(gold),
        "mcc": mcc(gold, said),
        "accuracy_on_schema": sum(g == s for g, s in read) / len(read) if read else math.nan,
        "within_one": sum(abs(g - s) <= 1 for g, s in read) / len(read) if read else math.nan,
        "kappa": kappa(x, y, n_labels),
        "kappa_linear": kappa(x, y, n_labels, "linear"),
        "kappa_quadratic": kappa(x, y, n_labels, "quadratic"),
        "gwet_ac1": gwet(units, n_labels),
        "gwet_ac2": gwet(units, n_labels, "quadratic"),
        "alpha_nominal": alpha(units, n_labels),
        "alpha_ordinal": alpha(units, n_labels, "ordinal"),
        "alpha_interval": alpha(units, n_labels, "interval"),
        "pearson": pearson(x, y),
        "spearman": spearman(x, y),
        "kendall_tau_b": kendall_tau_b(x, y),
    }
    found["icc_1_1"], found["icc_2_1"], found["icc_3_1"] = icc([list(pair) for pair in read])
    if positive is not None:
        found["tpr"] = recall(gold, said, positive)
        found["tnr"] = recall(gold, said, 1 - positive)
        found["ppv"], found["npv"] = (
            (
                sum(g == s == label for g, s in zip(gold, said, strict=True)) / said.count(label)
                if label in said
                else math.nan
            )
            for label in (positive, 1 - positive)
        )
        found["f1_positive"] = f1(gold, said, positive)
    return found
