import json
from pathlib import Path

import numpy as np
import pytest

from ssd_dist.evaluation.summary import summary_json
from ssd_dist.report import write_report


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}, which JSON has not")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def test_report_json_holds_the_numbers_unrounded(tmp_path, content):
    assert write_report(tmp_path / "new" / "report", content) == (
        tmp_path / "new" / "report" / "report.html"
    )
    report = strict_json(tmp_path / "new" / "report" / "report.json")
    expected = json.loads(json.dumps(summary_json(content.summary, "exact")))
    assert {name: report[name] for name in expected} == expected
    assert report["iou_threshold"] == 0.5
    assert report["num_images"] == 3
    assert report["num_objects"] == {"cat <b>&</b> co": 3, "<script>alert('dog')</script>": 1} | {
        "nowhere": 0
    }
    assert report["num_parameters"] == 4_000
    assert report["num_macs"] == 3_000_000
    assert report["complexity"]["layers"][0]["output_hw"] == [16, 16]
    assert report["time_per_image_ms"] == pytest.approx({"median": 4.0, "p10": 3.6, "p90": 6.0})
    assert report["timing"] == json.loads(json.dumps(content.timing))
    assert report["law"] is None
    assert report["learned"]["importance"] == {"lr": 0.7, "alpha": 0.1, "l2_lambda": 0.05}
    assert report["learned"]["interactions"][0] == ["alpha", "lr", 0.12]
    assert report["config"] == json.loads(json.dumps(content.config))
    assert report["hyperparameters"] == {"alpha": 1.5, "l2_lambda": 2.5e-4, "lr": 0.01}
    assert report["checkpoint"] == "runs/one/best_checkpoint"
    assert report["split"] == "test"
    assert report["validation_map_11pt"] == 0.75
    assert report["provenance"]["git_commit"] is None
    assert [trial["number"] for trial in report["leaderboard"]] == [2, 0, 3, 1]
    assert report["training_curve"][1]["loss"] is None  # not a number there


def test_the_law_has_two_keys_of_its_own(tmp_path, brief_with, make_law):
    law = make_law(lambda weights, macs, bytes_: 3e-8 * macs).to_json()
    write_report(tmp_path, brief_with(law=law))
    report = strict_json(tmp_path / "report.json")
    assert report["law"].keys() == {"weights", "macs", "bytes"}
    assert report["law"]["macs"]["r2"] == law["law"]["macs"]["r2"]
    assert len(report["law_details"]["points"]) == len(law["law_details"]["points"])


def test_detections_json_gives_every_detection_back(tmp_path, brief_with):
    content = brief_with()
    write_report(tmp_path, content)
    rows = strict_json(tmp_path / "detections.json")
    assert len(rows) == 6
    for found in content.detections:
        own = [row for row in rows if row["image_id"] == found.image_id]
        xywh = np.array([row["bbox"] for row in own])
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        assert xyxy.astype(np.float32).tolist() == found.boxes_xyxy.tolist()
        assert [row["score"] for row in own] == [float(score) for score in found.scores]
        assert [row["category"] for row in own] == [
            content.class_names[label - 1] for label in found.labels
        ]


def test_no_detections_are_an_empty_list(tmp_path, brief_with):
    write_report(tmp_path, brief_with(detections=[]))
    assert strict_json(tmp_path / "detections.json") == []


def test_without_a_search_the_leaderboard_is_null(tmp_path, brief_with):
    write_report(tmp_path, brief_with(leaderboard=None))
    assert strict_json(tmp_path / "report.json")["leaderboard"] is None


def test_the_same_content_gives_the_same_bytes(tmp_path, content):
    first = write_report(tmp_path / "first", content)
    second = write_report(tmp_path / "second", content)
    assert first.read_bytes() == second.read_bytes()


def test_a_picture_that_cannot_be_read_leaves_nothing_behind(tmp_path, brief_with):
    def broken(index):
        raise ValueError(f"picture {index}.jpg is truncated")

    with pytest.raises(ValueError, match="truncated"):
        write_report(tmp_path / "report", brief_with(read_image=broken))
    assert not (tmp_path / "report").exists()


def test_a_full_disk_leaves_the_report_of_before(tmp_path, brief_with, monkeypatch):
    write_report(tmp_path, brief_with())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"report.html", "report.md", "report.json", "detections.json"}
    write_text = Path.write_text

    def write_half(self, text, **options):
        if "report.html" in self.name:
            write_text(self, text[: len(text) // 2], **options)
            raise OSError(28, "No space left on device")
        return write_text(self, text, **options)

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, brief_with(model_name="another"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_summary_of_other_pictures_is_refused(content, brief_with):
    with pytest.raises(ValueError, match="about 3 pictures, the report about 2"):
        brief_with(annotations=content.annotations[:2], summary=content.summary)


def test_missing_hyperparameters_are_named(brief_with):
    with pytest.raises(ValueError, match="lack alpha, lr"):
        brief_with(hyperparameters={"l2_lambda": 0.1})
