"""What the service answers, as its OpenAPI page describes it."""

from __future__ import annotations

from pydantic import BaseModel, Field

from ssd_dist.distributed.serving_inference import Answer


class DetectedObject(BaseModel):
    """One object."""

    label: str = Field(description="name of its class")
    score: float = Field(ge=0, le=1)
    box: tuple[float, float, float, float] = Field(
        description="left, top, right and bottom in pixels, of the picture as a viewer shows it"
    )


class Milliseconds(BaseModel):
    """Where the time went."""

    total: float = Field(description="from the end of the upload to the answer")
    decode: float = Field(description="decoding and resizing this picture")
    network: float = Field(description="the network and post-processing, of the whole batch")


class DetectionResponse(BaseModel):
    """What was found in a picture, highest score first."""

    width: int = Field(description="of the picture, in pixels")
    height: int
    detections: list[DetectedObject]
    batch_size: int = Field(description="pictures that met the network together")
    milliseconds: Milliseconds


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="one sentence")


def response_of(
    answer: Answer, class_names: tuple[str, ...], score_threshold: float, total_ms: float
) -> dict[str, object]:
    """The answer in the shape of `DetectionResponse`, from a score on; ready to be encoded."""
    count = int((answer.scores >= score_threshold).sum())  # they fall
    rows = zip(
        answer.labels[:count].tolist(),
        answer.scores[:count].tolist(),
        answer.boxes_xyxy[:count].tolist(),
        strict=True,
    )
    return {
        "width": answer.width,
        "height": answer.height,
        "detections": [
            {"label": class_names[label - 1], "score": score, "box": box}
            for label, score, box in rows
        ],
        "batch_size": answer.batch_size,
        "milliseconds": {
            "total": round(total_ms, 3),
            "decode": round(answer.decode_ms, 3),
            "network": round(answer.network_ms, 3),
        },
    }
