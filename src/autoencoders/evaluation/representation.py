"""What a code is good for without its decoder: clusters and features, beside PCA's code and the pixels.

Everything is scored on the official test images. Probes, neighbours and the clusters of whitened codes are
fitted on training images; k-means finds the other clusters, without labels, among the test images themselves,
or among all images where that is asked for.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from autoencoders import figures
from autoencoders.evaluation.intervals import Mean, Places, Statistic
from autoencoders.evaluation.subject import Array, Labels, Scores, Subject, k_means, main_directions, waiting

THOROUGH = 20  # starts of k-means in the protocols of papers
WIDEST = 256  # numbers of a code that is whitened
MOST_CONFUSED = 30  # classes, and clusters, in a table of them
NEIGHBOURS = 5
FEW = (1, 10, 100)  # labels a class


def clustering(subject: Subject) -> Scores:
    """k-means finds as many clusters as there are classes among the test images' codes, without labels, and
    is scored on the same images: accuracy under the best assignment of clusters to classes (Hungarian
    method), normalised mutual information, adjusted Rand index; and the silhouette of 2,000 codes. Also the
    model's own clusters, such as DEC's, which it found among training images.

    "model, whitened" is the protocol of Berthelot et al. 2019: codes are whitened (all their directions get
    the same variance), and k-means finds its clusters in those of at most 10,000 training images, from more
    starts; only of codes of up to 256 numbers."""
    scores: Scores = {}
    if (own := subject.test_clusters) is not None:
        scores["own clusters"] = _scores_of_clusters(subject, own, subject.test_codes)
    for name, (_, test) in tqdm(
        subject.representations.items(), desc="clustering", leave=False, disable=None
    ):
        of_model = name == "model"
        clusters = subject.code_clusters if of_model else k_means(test, test, len(subject.data.classes))
        scores[name] = _scores_of_clusters(subject, clusters, test)
        if of_model and test.shape[1] <= WIDEST:
            train, test = whitened(subject.train_codes, subject.test_codes)
            clusters = k_means(train, test, len(subject.data.classes), starts=THOROUGH)
            scores["model, whitened"] = _scores_of_clusters(subject, clusters, test)
    return scores


def clustering_of_all_images(subject: Subject) -> Scores:
    """As papers on clustering do it (Xie et al. 2016, §5): k-means finds its clusters, without labels, among
    the codes of all images, those to train on, to validate and to test, from more starts; scored on the test
    images, as in `clustering`."""
    data, test = subject.data, subject.test_codes
    everything = np.concatenate([subject.codes(data.train), subject.codes(data.val), test])
    with waiting("k-means"):
        clusters = k_means(everything, test, len(data.classes), starts=THOROUGH)
    return {"model": _scores_of_clusters(subject, clusters, test)}


def whitened(train: Array, test: Array) -> tuple[Array, Array]:
    """Codes (N, D) in the main directions (N, R) of those to train on, which have a variance of 1 in each;
    less where they hardly vary, so that no rounding is made large."""
    mean, basis, deviations = main_directions(train)
    scale = basis.T / np.maximum(deviations, 1e-4 * deviations[0] or 1)
    both = [((codes - mean) @ scale).astype(np.float32) for codes in (train, test)]
    return both[0], both[1]


def _scores_of_clusters(subject: Subject, clusters: Labels, codes: Array) -> dict[str, Any]:
    labels, some = subject.test_labels, slice(0, 2000)
    several = 1 < len(set(clusters[some])) < len(clusters[some])
    return {
        "accuracy": hungarian_accuracy(clusters, labels, len(subject.data.classes)),
        "nmi": Statistic(partial(agreement, mutual_information, clusters, labels), len(labels)),
        "ari": Statistic(partial(agreement, rand_index, clusters, labels), len(labels)),
        "silhouette": float(silhouette_score(codes[some], clusters[some])) if several else float("nan"),
    }


def confusion(subject: Subject) -> figures.Counts:
    """How many test images of each class are in each cluster, named after its most frequent class: the
    model's own clusters, or those of k-means on its codes."""
    own, classes = subject.test_clusters, subject.data.classes
    clusters = subject.code_clusters if own is None else own
    counts = contingency(clusters, subject.test_labels, len(classes))
    counts = counts[counts.sum(1) > 0]
    frequent = counts.argmax(1)
    order = np.lexsort((-counts.sum(1), frequent))[:MOST_CONFUSED]  # by class, larger ones first
    down = [classes[frequent[cluster]] for cluster in order]
    of = "clusters" if own is not None else "k-means clusters"
    title, y = f"{of} of the codes and classes", "cluster, by its most frequent class"
    return figures.Counts(counts[order], down, classes, x="class", y=y, title=title)


def hungarian_accuracy(clusters: NDArray[np.int_], labels: Labels, classes: int) -> Mean:
    """The accuracy of clusters taken for classes, under the best one-to-one assignment (Kuhn 1955). Of more
    clusters than classes, those that are left are wrong."""
    return Mean(matched(clusters, labels, classes)[1][clusters] == labels)


def matched(
    clusters: NDArray[np.int_], labels: Labels, classes: int
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """How many images each cluster has of each class (K, classes), K being at least the number of classes,
    and the class (K,) of each cluster under the best one-to-one assignment, -1 for those that are left."""
    counts = contingency(clusters, labels, classes)
    counts = np.pad(counts, ((0, max(0, classes - len(counts))), (0, 0)))
    class_of, (assigned, to) = np.full(len(counts), -1), linear_sum_assignment(-counts)
    class_of[assigned] = to
    return counts, class_of


def agreement(
    measure: Callable[[NDArray[np.float64]], float], clusters: Labels, labels: Labels, places: Places
) -> float:
    """How well clusters and classes (N,) go together at some places, by a measure of their contingency table:
    that is counted in a moment, where scikit-learn's own functions would take seconds for all resamples."""
    counts = contingency(clusters[places], labels[places], int(labels.max()) + 1)
    return measure(counts.astype(np.float64))


def contingency(clusters: NDArray[np.int_], labels: Labels, classes: int) -> NDArray[np.int_]:
    """How many images (N,) each cluster has of each class (K, classes), up to the last one that has any."""
    counts = np.bincount(clusters * classes + labels, minlength=(int(clusters.max()) + 1) * classes)
    return counts.reshape(-1, classes)


def mutual_information(counts: NDArray[np.float64]) -> float:
    """Normalised by the mean of both entropies (Strehl & Ghosh 2002)."""
    joint = counts / counts.sum()
    apart, together = entropy(joint.sum(0)) + entropy(joint.sum(1)), entropy(joint.ravel())
    return float(2 * (apart - together) / apart) if apart > 0 else 1.0


def rand_index(counts: NDArray[np.float64]) -> float:
    """Of pairs of images in one cluster and one class, adjusted for chance (Hubert & Arabie 1985)."""
    both, clusters, classes, every = (
        (n * (n - 1) / 2).sum() for n in (counts, counts.sum(1), counts.sum(0), counts.sum())
    )
    by_chance = clusters * classes / max(every, 1)
    most = (clusters + classes) / 2
    return float((both - by_chance) / (most - by_chance)) if most != by_chance else 1.0


def features(subject: Subject) -> Scores:
    """Test accuracy of a linear probe (logistic regression on standardised numbers) and of the 5 nearest
    neighbours, both from at most 10,000 labelled training images; and of the probe with 1, 10 and 100 labels
    a class. All images are as the model reads them: corrupted, if it was trained on corrupted ones."""
    labels, scores = subject.labelled.labels.numpy(), Scores()
    for name, (train, test) in tqdm(
        subject.representations.items(), desc="features", leave=False, disable=None
    ):
        nearest = KNeighborsClassifier(min(NEIGHBOURS, len(train))).fit(train, labels)
        scores[name] = {
            "linear_probe": probe(train, labels, test, subject.test_labels),
            "knn": Mean(nearest.predict(test) == subject.test_labels),
        }
        for few in FEW:
            chosen = first_of_each(labels, few)
            if len(chosen) == few * len(set(labels)):
                key = f"linear_probe_{few}_a_class"
                scores[name][key] = probe(train[chosen], labels[chosen], test, subject.test_labels)
    return scores


def probe(train: Array, labels: Labels, test: Array, test_labels: Labels) -> Mean:
    """The test accuracy of logistic regression."""
    if (labels == labels[0]).all():  # which it refuses
        return Mean(test_labels == labels[0])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, C=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # on pixels 200 steps are as good as more
        return Mean(classifier.fit(train, labels).predict(test) == test_labels)


def first_of_each(labels: Labels, count: int) -> NDArray[np.int64]:
    """The places of the first `count` images of each class that has so many."""
    places = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
    return np.concatenate([place for place in places if len(place) == count] or [np.array([], np.int64)])
