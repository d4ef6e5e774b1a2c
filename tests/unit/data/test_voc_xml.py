"""One annotation file: lines, entities, and what stands where it should not."""

from __future__ import annotations

import socket

import pytest

from ssd_dist.data.problems import ProblemList
from ssd_dist.data.voc_xml import read_voc_file

GOOD = """<annotation>
  <size><width>40</width><height>30</height></size>
  <object>
    <name>dog</name>
    <bndbox>
      <xmin>1</xmin><ymin>2</ymin>
      <xmax>11</xmax><ymax>22</ymax>
    </bndbox>
  </object>
  <object>
    <name>cat</name>
    <difficult>1</difficult>
    <part><name>head</name><bndbox><xmin>5</xmin></bndbox></part>
    <bndbox><ymax>9</ymax><xmax>8.5</xmax><ymin>7</ymin><xmin>6</xmin></bndbox>
  </object>
</annotation>
"""


@pytest.fixture
def read(tmp_path):
    def read(xml: str | bytes, *, strict: bool = False):
        path = tmp_path / "a.xml"
        path.write_bytes(xml if isinstance(xml, bytes) else xml.encode())
        problems = ProblemList(strict=strict)
        return read_voc_file(path, problems), list(problems)

    return read


def test_values_and_lines(read):
    file, problems = read(GOOD, strict=True)
    assert problems == []
    assert (file.size, file.size_line) == ((40, 30), 2)
    dog, cat = file.objects
    assert (dog.class_name, dog.box_xyxy, dog.difficult, dog.line) == (
        "dog",
        (1, 2, 11, 22),
        False,
        3,
    )
    assert (cat.class_name, cat.box_xyxy, cat.difficult, cat.line) == (
        "cat",
        (6, 7, 8.5, 9),
        True,
        10,
    )


@pytest.mark.parametrize(
    ("old", "new", "kind", "line", "words"),
    [
        ("<xmax>11", "<xmax>nan", "bad_coordinate", 7, "<xmax> of a 'dog' is 'nan', not a number"),
        ("<xmax>11", "<xmax>-inf", "bad_coordinate", 7, "is '-inf', not a number"),
        ("<xmax>11", "<xmax>1e300", "bad_coordinate", 7, "is '1e300', not a number of pixels"),
        ("<xmax>11", "<xmax>eleven", "bad_coordinate", 7, "is 'eleven', not a number"),
        ("<xmax>11</xmax>", "", "bad_coordinate", 3, "<xmax> of a 'dog' is missing"),
        ("<name>dog</name>", "<name> </name>", "bad_class_name", 4, "an object has no name"),
        ("<name>dog</name>", "", "bad_class_name", 3, "an object has no name"),
        ("<name>dog", f"<name>{'x' * 201}", "bad_class_name", 4, "a name of 201 characters"),
        ("<name>dog", "<name>d\u009bog", "bad_class_name", 4, r"'d\x9bog', with characters that"),
        ("<name>dog", "<name>\u202egod", "bad_class_name", 4, r"'\u202egod'"),
        ("<difficult>1", "<difficult>yes", "bad_difficult", 12, "of a 'cat' is 'yes', not 0 or 1"),
    ],
)
def test_bad_object_is_told_with_its_line_and_left_out(read, old, new, kind, line, words):
    assert old in GOOD
    xml = GOOD.replace(old, new, 1)
    file, (problem,) = read(xml)
    assert (problem.kind, problem.line) == (kind, line)
    assert words in problem.message
    assert len(file.objects) == 1
    with pytest.raises(ValueError, match=rf"^line {line} of .*a\.xml: "):
        read(xml, strict=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<name>dog</name>", "<name>dog</name>\n<name>wolf</name>"),
        ("</bndbox>", "</bndbox>\n<bndbox><xmin>7</xmin><name>x</name></bndbox>"),
        ("</size>", "</size>\n<size><width>99</width></size>"),
        ("<xmin>1</xmin>", "<xmin>1</xmin>\n<xmin>nan</xmin>"),
    ],
)
def test_what_stands_twice_is_told_once_and_the_first_holds(read, old, new):
    file, (problem,) = read(GOOD.replace(old, new, 1), strict=True)
    assert problem.kind == "repeated_element"
    assert problem.line == GOOD[: GOOD.index(old)].count("\n") + 2
    assert file.size == (40, 30)
    assert file.objects[0].class_name == "dog"
    assert file.objects[0].box_xyxy == (1, 2, 11, 22)
    assert len(file.objects) == 2


LAUGHS = "".join(
    f'<!ENTITY l{i} "{"".join([f"&l{i - 1};"] * 10) if i else "lol"}">' for i in range(10)
)


@pytest.mark.parametrize(
    ("document_type", "name", "kind", "words"),
    [
        (f"<!DOCTYPE a [{LAUGHS}]>", "&l9;", "forbidden_xml", "it defines the entity 'l0'"),
        (f'<!DOCTYPE a [<!ENTITY e "{"x" * 10**6}">]>', "&e;" * 99, "forbidden_xml", "entity 'e'"),
        (
            '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
            "&e;",
            "forbidden_xml",
            "entity 'e'",
        ),
        ('<!DOCTYPE a [<!ENTITY % p SYSTEM "p.dtd"> %p;]>', "x", "forbidden_xml", "entity 'p'"),
        ('<!DOCTYPE a SYSTEM "a.dtd">', "&eacute;", "forbidden_xml", "refers to 'a.dtd'"),
        ('<!DOCTYPE a PUBLIC "x" "">', "&eacute;", "forbidden_xml", "it refers to 'x'"),
        ("", "&eacute;", "broken_annotation", "undefined entity"),
    ],
    ids=["billion laughs", "quadratic", "external", "parameter", "of a DTD", "public", "undefined"],
)
def test_entities_are_refused(read, document_type, name, kind, words):
    xml = "\n" + document_type + GOOD.replace("dog", name, 1)
    file, (problem,) = read(xml)
    assert file is None
    assert problem.kind == kind
    assert problem.line in (2, 5)
    assert words in problem.message


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/a.dtd", "a.dtd", "file:///etc/passwd"])
def test_document_type_elsewhere_is_refused_and_not_fetched(read, monkeypatch, tmp_path, source):
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a connection"))
    (tmp_path / "a.dtd").write_text("<!ELEMENT not even a DTD")
    file, (problem,) = read(f'<!DOCTYPE annotation SYSTEM "{source}">{GOOD}')
    assert file is None
    assert (problem.kind, problem.line) == ("forbidden_xml", 1)
    assert f"it refers to '{source}', which no annotation needs" in problem.message


@pytest.mark.parametrize(
    ("xml", "line", "words"),
    [
        (GOOD.replace("</size>", "</sise>"), 2, "mismatched tag"),
        (GOOD[:-40], 14, "not readable as XML"),
        ("", 1, "no element found"),
        ("no XML", 1, "syntax error"),
        ("<html>\n<object/></html>", 1, "no VOC annotation: its root is <html>"),
        (GOOD.replace("<annotation>", "<annotation>\x00"), 1, "not well-formed"),
        (b'<?xml version="1.0" encoding="rot13"?><annotation/>', 1, "rot13"),
        (b'<?xml version="1.0" encoding="utf-16"?><annotation/>', 1, "not readable as XML"),
        (GOOD.replace("dog", "d\xf6g").encode("latin-1"), 4, "not well-formed"),
    ],
)
def test_broken_files_are_told_with_the_line(read, xml, line, words):
    file, (problem,) = read(xml)
    assert file is None
    assert problem.kind == "broken_annotation"
    assert problem.line == line
    assert words in problem.message


def test_depth_and_size_cost_no_more_than_their_bytes(read):
    deep = "<x>" * 100_000 + "</x>" * 100_000
    many = "<object><name>x</name><bndbox/></object>" * 20_000
    file, problems = read(GOOD.replace("</annotation>", deep + many + "</annotation>"))
    assert len(file.objects) == 2
    assert len(problems) == 20_000


def test_sizes_that_are_no_numbers_are_not_known(read):
    for width in ("", "?", "-4", "4.5", "9" * 5000, "１０ "):
        file, _ = read(GOOD.replace("<width>40", f"<width>{width}"), strict=True)
        assert file.size == (10 if width == "１０ " else 0, 30)
