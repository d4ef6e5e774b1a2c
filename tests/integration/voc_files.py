"""A small data set of real files."""

from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image

from ssd_dist.data.synthetic import synthetic_split

SPLIT_SIZES = {"train": 24, "val": 8, "test": 8}


def write_voc(root: Path) -> Path:
    """Writes a PASCAL VOC folder of 40 synthetic pictures; returns it."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for name, num_images in SPLIT_SIZES.items():
        split = synthetic_split(name, num_images=num_images)
        ids = []
        for index, annotation in enumerate(split.annotations):
            stem = f"{name}_{index:03d}"
            ids.append(stem)
            Image.fromarray(split.read_image(index)).save(root / "JPEGImages" / f"{stem}.jpg")
            objects = "".join(
                f"<object><name>{escape(split.class_names[label - 1])}</name>"
                "<difficult>0</difficult><bndbox>"
                + "".join(
                    f"<{side}>{value}</{side}>"
                    for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
                )
                + "</bndbox></object>"
                for box, label in zip(annotation.boxes_xyxy, annotation.labels, strict=True)
            )
            (root / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{stem}.jpg</filename>{objects}</annotation>"
            )
        (root / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(ids))
    return root
