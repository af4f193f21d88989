"""What an image tower's classifier knows of photographs, as pairs of an image feature and a text feature. No image is read.

A tower that was trained to classify knows where each class lies: at the end of training, class means point along the rows of
the classifier (neural collapse; Papyan, Han and Donoho, 2020). Features are drawn around sums of a few such directions, as
photographs show several things. Their text is what zero-shot classification by convex combination of class names gives
(ConSE; Norouzi et al., 2014, Eq. 6): the mean of the names' text features, weighted by the classifier's probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F

MOST = 3  # classes in a drawn feature
DISTANCE = 6.0  # of a drawn feature along its classes' directions, from half of it to one and a half
TEMPERATURE = 2.0  # of the class probabilities: photographs show more than their likeliest class
SLOPE, THRESHOLD = 0.5, 2.0  # of a head's hidden units in a class's logit, at the start
WEIGHT = 3.0  # of the classes' names in a head at the start, in units of the weights that PyTorch would draw
MIXED = 8  # tower outputs whose random sum is the noise of a drawn feature


def imagenet_descriptions() -> list[str]:
    """Names and WordNet definition of each of ImageNet's 1,000 classes, in the order of a classifier's rows."""
    info = ImageNetInfo()
    return [info.index_to_description(index, detailed=True) for index in range(info.num_classes())]


@dataclass(frozen=True)
class Classifier:
    """A linear classifier on an image tower's outputs, with the text tower's outputs for its classes' names.

    Attributes:
        weight, bias: of the classifier.
        names: unit length.
    """

    weight: Float[Tensor, "classes image_width"]
    bias: Float[Tensor, " classes"]
    names: Float[Tensor, "classes text_width"]

    def text_of(self, image: Float[Tensor, "features image_width"]) -> Float[Tensor, "features text_width"]:
        """Return ConSE's text feature of image features, as long a way from the mean of all names as a name is."""
        mean = self.names.mean(dim=0)
        deviations = self.names - mean
        mixed = F.softmax((image @ self.weight.T + self.bias) / TEMPERATURE, dim=1) @ deviations
        return mean + F.normalize(mixed, dim=1) * deviations.norm(dim=1).mean()


def class_features(
    classifier: Classifier, outputs: Float[Tensor, "outputs image_width"]
) -> Callable[[int], tuple[Float[Tensor, "features image_width"], Float[Tensor, "features text_width"]]]:
    """Return a function that draws any number of image features with their text features, from torch's random state.

    Args:
        classifier: of the image tower.
        outputs: of the image tower for any images. Only their overall mean and their deviations from each channel's mean
            are used, as level and noise of what is drawn.
    """
    level, deviations = outputs.mean(), outputs - outputs.mean(dim=0)
    rows = classifier.weight - classifier.weight.mean(dim=0)
    directions = F.normalize(rows, dim=1)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        shown = torch.arange(MOST) < torch.randint(1, MOST + 1, (count, 1))
        shares = F.normalize(torch.rand(count, MOST) * shown, dim=1)
        distance = DISTANCE * (0.5 + torch.rand(count, 1))
        classes = torch.randint(len(directions), (count, MOST))
        place = distance * (shares[..., None] * directions[classes]).sum(dim=1)
        chosen = deviations[torch.randint(len(deviations), (count, MIXED))]
        noise = (chosen * torch.randn(count, MIXED, 1)).sum(dim=1) / MIXED**0.5
        image = (level + place + noise).clamp_min(0)  # as after the tower's ReLU
        return image, classifier.text_of(image)

    return draw


def start_as_classifier(
    classifier: Classifier, head: tuple[nn.Linear, nn.Linear], text_head: nn.Linear, image_scale: float | Tensor
) -> None:
    """Start a head of two layers, with a GELU in between, as a soft form of ConSE: photographs are placed from the start.

    A hidden unit a class is active where the class's logit exceeds a threshold, in place of the softmax of `text_of`, and
    adds the class's name. Its retrieval of photographs is the softmax's. Hidden units beyond the classes stay as they are.

    Args:
        classifier: of the image tower.
        head: first and second layer, changed in place; the first has a bias and at least as many hidden units as there are
            classes.
        text_head: what texts pass through, as it is at the start.
        image_scale: what the image tower's outputs are divided by before they enter the head.
    """
    first, second = head
    classes = len(classifier.weight)
    with torch.no_grad():
        first.weight[:classes] = SLOPE * classifier.weight * image_scale
        first.bias[:classes] = SLOPE * (classifier.bias - THRESHOLD)
        named = text_head(classifier.names - classifier.names.mean(dim=0)).T
        second.weight[:, :classes] = named * (WEIGHT * second.weight.std() / named.std())
