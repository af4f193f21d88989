"""Every metric as its definition says, in float64 with numpy, scipy and scikit-learn: what the framework must agree with."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity

Array = np.ndarray


def ratios(image: Array, text: Array) -> Array:
    a, b = np.abs(image), np.abs(text)
    with np.errstate(invalid="ignore"):
        return a / (a + b)


def by_feature(values: Array, function) -> Array:  # type: ignore[no-untyped-def]
    """A function of each column's known values."""
    return np.array([function(column[~np.isnan(column)]) for column in values.T], dtype=np.float64)


def mds(image: Array, text: Array) -> Array:
    return by_feature(ratios(image, text), lambda r: r.mean() if len(r) else np.nan)


def mds_half(image: Array, text: Array) -> Array:
    known = ratios(image, text)
    live = ~np.isnan(known).all(0)
    return np.where(live, np.where(np.isnan(known), 0.5, known).mean(0), np.nan)


def standard_error(image: Array, text: Array) -> Array:
    return by_feature(ratios(image, text), lambda r: r.std(ddof=1) / np.sqrt(len(r)) if len(r) > 1 else np.nan)


def sign_flip_p(image: Array, text: Array) -> Array:
    def p(r: Array) -> float:
        if not len(r):
            return np.nan
        excess = r - 0.5
        scatter = np.sqrt((excess**2).sum())
        return 2 * norm.sf(abs(excess.sum()) / scatter) if scatter > 0 else 1.0

    return by_feature(ratios(image, text), p)


def energy(image: Array, text: Array) -> Array:
    a, b = (image**2).sum(0), (text**2).sum(0)
    with np.errstate(invalid="ignore"):
        return a / (a + b)


def auroc(image: Array, text: Array) -> Array:
    target = np.repeat([1, 0], [len(image), len(text)])
    return np.array([roc_auc_score(target, np.abs(column)) for column in np.concatenate([image, text]).T])


def gap(image: Array, text: Array) -> Array:
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (image, text)]
    difference = np.linalg.norm(image, axis=1).mean() - np.linalg.norm(text, axis=1).mean()
    return np.array([np.linalg.norm(unit[0].mean(0) - unit[1].mean(0)), difference])


def fvu(x: Array, reconstruction: Array) -> float:
    return 1 - r2_score(x, reconstruction, multioutput="variance_weighted")


def mean_cosine(x: Array, reconstruction: Array) -> float:
    return float(np.mean([cosine_similarity(a[None], b[None]) for a, b in zip(x, reconstruction, strict=True)]))


def recall(queries: Array, targets: Array, k: int) -> float:
    """By counting, for each query, the targets that are nearer than its own."""
    similarity = cosine_similarity(queries, targets)
    own = np.diag(similarity)[:, None]
    above, ties = (similarity > own + 1e-9).sum(1), (np.abs(similarity - own) <= 1e-9).sum(1)
    return float(np.clip((k - above) / ties, 0, 1).mean())


def clip_loss(image: Array, text: Array, scale: float) -> float:
    logits = scale * cosine_similarity(image, text)
    own = np.diag(logits)
    return float(np.mean([logsumexp(logits, axis=axis) - own for axis in (0, 1)]))


def embsim_and_winrate(active: Array, random: Array, floor: float = 0.01) -> tuple[Array, Array, Array]:
    """Eq. 5 over all i ≠ j: as printed, pooled, and the share of wins."""
    off = ~np.eye(active.shape[1], dtype=bool)
    printed, pooled, wins = [], [], []
    for a, r in zip(active, random, strict=True):
        plus, minus = (a @ a.T)[off], (r @ r.T)[off]
        away = np.where(np.abs(minus) >= floor, minus, np.where(minus < 0, -floor, floor))
        mean = minus.mean()
        printed.append(((plus - minus) / away).mean())
        pooled.append((plus.mean() - mean) / (mean if abs(mean) >= floor else np.copysign(floor, mean)))
        wins.append((plus > minus).mean())
    return np.array(printed), np.array(pooled), np.array(wins)


def ms(activations: Array, embeddings: Array) -> Array:
    """Pach et al. 2025: over all pairs of samples, activations scaled to [0, 1]."""
    similarity = cosine_similarity(embeddings)
    np.fill_diagonal(similarity, 0)
    ones = 1 - np.eye(len(embeddings))
    scores = []
    for a in activations.T:
        span = a.max() - a.min()
        if span == 0 or (a > a.min()).sum() < 2:
            scores.append(np.nan)
            continue
        a = (a - a.min()) / span
        scores.append(a @ similarity @ a / (a @ ones @ a))
    return np.array(scores)


def correlations(a: Array, b: Array) -> Array:
    """Pearson's, 0 with what is constant."""
    a, b = a - a[0], b - b[0]
    a, b = a - a.mean(0), b - b.mean(0)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(a.T @ b / np.outer(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0)))


def histogram(values: Array, width: float, bins: int) -> Array:
    edges = (np.arange(bins + 1) - bins // 2) * width
    return np.histogram(values[values != 0], edges)[0]
