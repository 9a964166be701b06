"""What a code is good for without its decoder: clusters and features, beside PCA's code and the pixels.

Everything is on the official test images, and what is fitted is fitted on labelled training images.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from autoencoders.evaluation.subject import Array, Scores, Subject

NEIGHBOURS = 5
FEW = (1, 10, 100)  # labels a class
Labels = NDArray[np.int64]


def clustering(subject: Subject) -> Scores:
    """k-means with as many clusters as classes on the test images' codes: accuracy under the best assignment
    of clusters to classes (Hungarian method), normalised mutual information, adjusted Rand index; and the
    silhouette of 2,000 codes. Of a model that has clusters, those too, which it found in training images."""
    scores: Scores = {}
    if (own := subject.test_clusters) is not None:
        scores["own clusters"] = _scores_of_clusters(subject, own, subject.test_codes)
    for name, (_, test) in tqdm(
        subject.representations.items(), desc="clustering", leave=False, disable=None
    ):
        classes = len(subject.data.classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different codes than clusters
            clusters = KMeans(min(classes, len(test)), n_init=5, random_state=0).fit_predict(test)
        scores[name] = _scores_of_clusters(subject, clusters, test)
    return scores


def _scores_of_clusters(subject: Subject, clusters: Labels, codes: Array) -> dict[str, float]:
    labels, some = subject.test_labels, slice(0, 2000)
    several = 1 < len(set(clusters[some])) < len(clusters[some])
    return {
        "accuracy": hungarian_accuracy(clusters, labels, len(subject.data.classes)),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
        "silhouette": float(silhouette_score(codes[some], clusters[some])) if several else float("nan"),
    }


def hungarian_accuracy(clusters: NDArray[np.int_], labels: Labels, classes: int) -> float:
    """The accuracy of clusters taken for classes, under the best one-to-one assignment (Kuhn 1955). Of more
    clusters than classes, those that are left are wrong."""
    counts = np.zeros((max(classes, int(clusters.max()) + 1), classes), int)
    np.add.at(counts, (clusters, labels), 1)
    return float(counts[linear_sum_assignment(-counts)].sum() / len(labels))


def features(subject: Subject) -> Scores:
    """Test accuracy of a linear probe (logistic regression on standardised numbers) and of the 5 nearest
    neighbours, both from at most 10,000 labelled training images; and of the probe with 1, 10 and 100 labels
    a class."""
    labels, scores = subject.labelled.labels.numpy(), Scores()
    for name, (train, test) in tqdm(
        subject.representations.items(), desc="features", leave=False, disable=None
    ):
        nearest = KNeighborsClassifier(min(NEIGHBOURS, len(train))).fit(train, labels)
        scores[name] = {
            "linear_probe": probe(train, labels, test, subject.test_labels),
            "knn": float(nearest.score(test, subject.test_labels)),
        }
        for few in FEW:
            chosen = first_of_each(labels, few)
            if len(chosen) == few * len(set(labels)):
                key = f"linear_probe_{few}_a_class"
                scores[name][key] = probe(train[chosen], labels[chosen], test, subject.test_labels)
    return scores


def probe(train: Array, labels: Labels, test: Array, test_labels: Labels) -> float:
    """The test accuracy of logistic regression."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, C=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # on pixels 200 steps are as good as more
        return float(classifier.fit(train, labels).score(test, test_labels))


def first_of_each(labels: Labels, count: int) -> NDArray[np.int64]:
    """The places of the first `count` images of each class that has so many."""
    places = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
    return np.concatenate([place for place in places if len(place) == count] or [np.array([], np.int64)])
