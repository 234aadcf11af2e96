"""The shapes of requests and answers, for the API's description."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from paripassu.core.digits import SIZE
from paripassu.serve.questions import MOST_IMAGES

Number = Annotated[float, Field(ge=0, le=255)]
Row = Annotated[list[Number], Field(min_length=SIZE, max_length=SIZE)]
Image = Annotated[list[Row], Field(min_length=SIZE, max_length=SIZE)]


class Question(BaseModel):
    """One image, or several: 28 rows of 28 numbers, 0 for black paper, 255 for ink."""

    image: Image | None = Field(None, description="One image, taken as it is.")
    images: Annotated[list[Image], Field(max_length=MOST_IMAGES)] = Field(
        default_factory=list, description="More images; they come after `image`."
    )


class Answer(BaseModel):
    """What one model says of one image."""

    model: str = Field(description="Its name in /models.")
    digit: int = Field(description="The most probable class.")
    probabilities: list[float] = Field(description="Of each class, float32.")


class Prediction(BaseModel):
    """What all models say of one image."""

    answers: list[Answer]
    agree: bool = Field(description="Whether all find the same digit.")
    largest_difference: float = Field(
        description="Between the models, of any class's probability."
    )


class Predictions(BaseModel):
    """The answer to a question, in the order of its images."""

    predictions: list[Prediction]
    milliseconds: dict[str, float] = Field(
        description="Inside each network, for the batches that the images were in."
    )
    image: list[list[int]] | None = Field(
        None, description="What the networks saw of a picture: 28 rows of 28."
    )
    doubts: list[str] | None = Field(
        None, description="Why a picture may be no digit; empty if it looks like one."
    )


class Model(BaseModel):
    """A network and the framework that answers with it."""

    name: str
    title: str
    framework: str
    version: str | None = Field(description="Of the framework.")
    source: str = Field(description="The run or file that was given.")
    trained_by: str | None
    recipe: str
    network: str
    classes: int
    parameters: int
    test_accuracy: float | None = Field(description="As measured after training.")
    status: str = Field(description="starting, ready, restarting or stopping.")
    restarts: int


class Models(BaseModel):
    """All models, in the order of the answers."""

    models: list[Model]


class Health(BaseModel):
    """Whether every model answers."""

    status: str = Field(description="ok, or unavailable with status code 503.")
    models: dict[str, str]


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str
