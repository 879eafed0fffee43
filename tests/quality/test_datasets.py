"""Reading a folder of pictures, well made and badly made."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import Sample, load_dataset, picture_size, read_image, read_mask, require_masks
from tests.quality.drawing import draw, mask_of, mvtec_set, table_set
from tests.requirements import need

SHARED = Path(__file__).parents[3] / "shared" / "data"


# -- layouts


def test_a_table_says_label_mask_domain_group_split_and_probability(tmp_path):
    table_set(
        tmp_path / "tiles",
        "image,label,mask,domain,group,split,defect_probability\n"
        "a.png,good,,line1,g1,train,0.0\n"
        "b.png,crack,m/b.png,line2,g2,test,0.9\n",
    )
    good, crack = load_dataset(tmp_path / "tiles").samples
    assert (good.healthy, good.mask, good.domain, good.group, good.split, good.probability) == (
        True, None, "line1", "g1", "train", 0.0,
    )  # fmt: skip
    assert (crack.healthy, crack.mask, crack.label) == (False, tmp_path / "tiles/m/b.png", "crack")


def test_folders_of_mvtec_need_no_table(tmp_path):
    data = load_dataset(mvtec_set(tmp_path / "weave"))
    assert data.classes == ("crack",)
    assert data.healthy_labels == ("good",)
    assert data.domains == ("weave",)
    assert len(data.samples) == 20
    assert all((sample.mask is not None) == (sample.label == "crack") for sample in data.samples)


@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_masks_of_mvtec_are_found_with_and_without_their_suffix(tmp_path, suffix):
    data = load_dataset(mvtec_set(tmp_path / "weave", suffix=suffix))
    assert data.has_masks


def test_folders_of_mvtec_may_lie_one_level_down(tmp_path):
    mvtec_set(tmp_path / "download" / "screw")
    assert load_dataset(tmp_path / "download").domains == ("screw",)


def test_a_table_wins_over_the_folders(tmp_path):
    root = mvtec_set(tmp_path / "weave")
    (root / "labels.csv").write_text("image,label\ntest/crack/000.png,tear\ntrain/good/001.png,good\n")
    data = load_dataset(root)
    assert data.classes == ("tear",)
    assert len(data.samples) == 2


def test_of_two_folders_each_is_a_domain_and_the_first_is_the_original(tmp_path):
    old, new = mvtec_set(tmp_path / "old"), mvtec_set(tmp_path / "new")
    data = load_dataset(old, new)
    assert data.domains == ("new", "old")
    assert data.roles == {"original": (("old",),), "new": (("new",),)}
    assert len({sample.image for sample in data.samples}) == 40


def test_two_folders_of_one_name_are_told_apart_by_their_parents(tmp_path):
    data = load_dataset(mvtec_set(tmp_path / "a" / "set"), mvtec_set(tmp_path / "b" / "set"))
    assert data.domains == ("a-set", "b-set")


def test_the_set_says_what_is_healthy_ignored_and_who_is_who(tmp_path):
    root = table_set(
        tmp_path / "cells",
        "image,label,domain\na.png,functional,mono\nb.png,unsure,mono\nc.png,dead,poly\n",
    )
    (root / "dataset.yaml").write_text(
        "schema: dataset/1\ntitle: Cells\nlicence: ours\nhealthy: [functional]\nignore: [unsure]\n"
        "domains: {original: [mono], new: [poly]}\n"
    )
    data = load_dataset(root)
    assert [sample.healthy for sample in data.samples] == [True, None, False]
    assert data.classes == ("dead",)
    assert data.title == "Cells"
    assert data.roles == {"original": (("mono",),), "new": (("poly",),)}


def test_without_a_word_about_it_the_usual_labels_are_healthy(tmp_path):
    table_set(tmp_path / "s", "image,label\na.png,OK\nb.png,Normal\nc.png,dent\n")
    assert [sample.healthy for sample in load_dataset(tmp_path / "s").samples] == [True, True, False]


def test_without_labels_masks_and_probabilities_speak(tmp_path):
    table_set(
        tmp_path / "s",
        "image,mask,defect_probability\na.png,m/a.png,\nb.png,,0\nc.png,,1\nd.png,,0.3\ne.png,,\n",
    )
    assert [sample.healthy for sample in load_dataset(tmp_path / "s").samples] == [
        False,
        True,
        False,
        None,
        None,
    ]


def test_classes_stand_in_sorted_order(tmp_path):
    table_set(tmp_path / "s", "image,label\na.png,tear\nb.png,blot\nc.png,good\nd.png,tear\n")
    assert load_dataset(tmp_path / "s").classes == ("blot", "tear")


def test_boxes_are_read_where_a_set_has_them(tmp_path):
    root = table_set(tmp_path / "s", "image,label\na.png,tear\nb.png,good\n")
    (root / "boxes.csv").write_text("image,class,xmin,ymin,xmax,ymax\na.png,tear,1,2,10,12\n")
    (box,) = load_dataset(root).boxes["a.png"]
    assert (box.label, box.left, box.top, box.right, box.bottom) == ("tear", 1, 2, 10, 12)


def test_the_digest_changes_with_a_pixel_and_with_a_label_and_with_nothing_else(tmp_path):
    table = "image,label\na.png,tear\nb.png,good\n"
    first = load_dataset(table_set(tmp_path / "one", table)).digest
    assert load_dataset(table_set(tmp_path / "one", table)).digest == first
    changed = table_set(tmp_path / "one", "image,label\na.png,dent\nb.png,good\n")
    assert load_dataset(changed).digest != first
    pixels = table_set(tmp_path / "one", table)
    draw(pixels / "a.png", np.full((24, 32, 3), 91, np.uint8))
    assert load_dataset(pixels).digest != first


# -- pictures


def sample_of(path: Path, **more) -> Sample:
    return Sample(path=path, image=path.name, label="tear", healthy=False, **more)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff"])
def test_every_usual_kind_of_file_becomes_blue_green_red(tmp_path, suffix):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :, 0] = 200
    image = read_image(sample_of(draw(tmp_path / f"a{suffix}", pixels)))
    assert (image.shape, image.dtype) == ((20, 30, 3), np.uint8)
    assert abs(int(image[10, 10, 0]) - 200) < 6
    assert picture_size(tmp_path / f"a{suffix}") == (20, 30)


def test_grey_becomes_three_equal_channels(tmp_path):
    image = read_image(sample_of(draw(tmp_path / "a.png", np.full((5, 6), 77, np.uint8))))
    assert image.shape == (5, 6, 3)
    assert (image == 77).all()


def test_alpha_is_dropped(tmp_path):
    pixels = np.full((5, 6, 4), 50, np.uint8)
    pixels[:, :, 3] = 0
    assert (read_image(sample_of(draw(tmp_path / "a.png", pixels))) == 50).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_of_sixteen_bits_the_upper_eight_that_are_used_are_kept(tmp_path, channels):
    pixels = np.full((5, 6, channels), 0x0AB0, np.uint16)
    path = draw(tmp_path / "a.png", pixels)
    assert (read_image(sample_of(path)) == 0x0A).all()
    assert (read_image(sample_of(path, bits=12)) == 0xAB).all()


def test_a_picture_that_lies_on_its_side_by_its_exif_mark_stands_upright_in_pixels_and_size(tmp_path):
    plain = draw(tmp_path / "a.jpg", size=(20, 30)).read_bytes()
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    exif = b"Exif\x00\x00" + tiff
    marked = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    (tmp_path / "a.jpg").write_bytes(marked)
    assert read_image(sample_of(tmp_path / "a.jpg")).shape == (30, 20, 3)
    assert picture_size(tmp_path / "a.jpg") == (30, 20)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty; replace it by a PNG, JPEG, BMP or TIFF, or take it out of the set"),
        (b"not a picture", "is no picture that can be read .damaged, or another format.; replace it"),
    ],
)
def test_a_picture_that_cannot_be_read_is_named(tmp_path, data, sentence):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DatasetError, match=f"a.png {sentence}"):
        read_image(sample_of(tmp_path / "a.png"))


def test_floating_point_pictures_are_refused(tmp_path):
    path = draw(tmp_path / "a.tiff", np.zeros((4, 4), np.float32))
    with pytest.raises(
        DatasetError, match="a.tiff holds float32 values; save it with 8 or 16 bits a channel"
    ):
        read_image(sample_of(path))


# -- masks


def masked(tmp_path: Path, mask, *, label: str = "tear", healthy: bool = False) -> Sample:
    return Sample(
        path=draw(tmp_path / "a.png"),
        image="a.png",
        label=label,
        healthy=healthy,
        mask=draw(tmp_path / "m.png", mask),
    )


CLASSES = ("blot", "tear")


def test_255_is_the_class_of_the_picture(tmp_path):
    mask = read_mask(masked(tmp_path, mask_of()), (24, 32), classes=CLASSES)
    assert mask is not None
    assert np.unique(mask).tolist() == [0, 2]


def test_a_mask_may_hold_class_ids_itself(tmp_path):
    drawn = mask_of(value=2)
    drawn[20:, 20:] = 1
    mask = read_mask(masked(tmp_path, drawn), (24, 32), classes=CLASSES)
    assert (mask == drawn).all()


def test_a_mask_in_three_equal_channels_is_taken(tmp_path):
    mask = read_mask(masked(tmp_path, np.repeat(mask_of()[:, :, None], 3, axis=2)), (24, 32), classes=CLASSES)
    assert mask is not None
    assert mask.shape == (24, 32)


@pytest.mark.parametrize(
    ("mask", "label", "healthy", "sentence"),
    [
        (
            mask_of((20, 20)),
            "tear",
            False,
            "is 20 x 20 pixels, but its picture .*a.png is 32 x 24; give a mask of the",
        ),
        (
            mask_of().astype(np.uint16),
            "tear",
            False,
            "m.png holds uint16 values; save it as 8-bit grey, 0 and 255",
        ),
        (
            mask_of(value=7),
            "tear",
            False,
            r"m.png holds the value 7; give 0 for healthy and 255 .or class ids 1 to 2.",
        ),
        (
            mask_of(value=1),
            "tear",
            False,
            "labelled 'tear', which is class 2, but its mask .* holds only 1; give 255",
        ),
        (
            mask_of(),
            "good",
            True,
            "labelled 'good', which is healthy, but its mask .* marks 64 pixels; correct the",
        ),
        (
            np.dstack([mask_of(), 0 * mask_of(), mask_of()]),
            "tear",
            False,
            "m.png is coloured; save it as 8-bit grey",
        ),
    ],
)
def test_a_mask_that_cannot_be_right_is_refused_in_one_sentence(tmp_path, mask, label, healthy, sentence):
    sample = masked(tmp_path, mask, label=label, healthy=healthy)
    with pytest.raises(DatasetError, match=sentence) as caught:
        read_mask(sample, (24, 32), classes=CLASSES)
    assert "\n" not in str(caught.value)


def test_a_mask_of_another_size_is_found_when_the_set_is_opened(tmp_path):
    root = table_set(tmp_path / "s", "image,label,mask\na.png,tear,m.png\nb.png,good,\n")
    draw(root / "m.png", mask_of((24, 31)))
    with pytest.raises(
        DatasetError, match=r"mask .*m.png is 31 x 24 pixels, but its picture .*a.png is 32 x 24"
    ):
        load_dataset(root)


def test_a_recipe_that_requires_masks_names_the_picture_without_one(tmp_path):
    data = load_dataset(
        table_set(tmp_path / "s", "image,label,mask\na.png,tear,\nb.png,tear,m.png\nc.png,good,\n")
    )
    with pytest.raises(
        DatasetError, match=r"a.png is defective and has no mask .as have 1 in all., but the recipe"
    ):
        require_masks(data)


def test_a_recipe_that_requires_masks_takes_a_set_that_has_them(tmp_path):
    require_masks(load_dataset(mvtec_set(tmp_path / "weave")))


# -- folders that are no set


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("", "labels.csv is empty; begin it with a line of column names, e.g. image,label,mask"),
        ("image,label\n", "lists no picture; add some, or give another folder"),
        ("label\ngood\n", "labels.csv:1: the column image is missing; add it"),
        ("image,lable\na.png,good\n", "labels.csv:1: no column named 'lable'; did you mean label?"),
        (
            "image,weather\na.png,good\n",
            "labels.csv:1: no column named 'weather'; there are image, label, mask",
        ),
        (
            "image;label\na.png;good\n",
            "labels.csv:1: the columns are not separated by commas; save it as CSV with",
        ),
        (
            "image,image\na.png,b.png\n",
            "labels.csv:1: the column image stands there twice; keep one of the two",
        ),
        ("image,label\na.png\n", "labels.csv:2: 1 fields under 2 columns; give one field a column"),
        ("image,label\n,good\n", "labels.csv:2: the field image is empty; give the picture's path"),
        (
            "image,label\na.png,good\nno.png,good\n",
            "labels.csv:3: image no.png does not exist; correct the path",
        ),
        (
            "image,label\nx\\no.png,good\n",
            r"labels.csv:2: image x\\no.png does not exist; write / instead of",
        ),
        (
            "image,label\n../a.png,good\n",
            "labels.csv:2: image ../a.png points outside the folder; give a path below",
        ),
        ("image,label\n/etc/a.png,good\n", "labels.csv:2: image /etc/a.png points outside the folder"),
        ("image,mask\na.png,x/../../m.png\n", "labels.csv:2: mask x/../../m.png points outside the folder"),
        ("image,mask\na.png,no.png\n", "labels.csv:2: mask no.png does not exist"),
        (
            "image,label\na.png,good\na.png,bad\n",
            "labels.csv:3: a.png stands here and in line 2; keep one of the two",
        ),
        ("image,split\na.png,val\n", "labels.csv:2: split is 'val'; give train, test or nothing"),
        (
            "image,defect_probability\na.png,1.5\n",
            "labels.csv:2: defect_probability is '1.5'; give a number from 0",
        ),
        (
            "image,label\na.png,Crack\nb.png,crack\n",
            "has two classes of one name, 'Crack' and 'crack'; spell them",
        ),
        (
            "image,label\na.png,edge chip\nb.png,edge_chip\n",
            "has two classes of one name, 'edge chip' and 'edge_chip'",
        ),
    ],
)
def test_a_table_that_cannot_be_right_is_refused_in_one_sentence(tmp_path, table, sentence):
    root = tmp_path / "s"
    for name in ("a.png", "b.png", "../a.png"):
        draw(root / name)
    (root / "labels.csv").write_text(table)
    with pytest.raises(DatasetError, match=sentence) as caught:
        load_dataset(root)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "labels.csv").write_bytes(b"image,label\n\xff\xfe,good\n")
    with pytest.raises(DatasetError, match="labels.csv is not UTF-8 text; save it as UTF-8"):
        load_dataset(tmp_path)


def test_no_such_folder(tmp_path):
    with pytest.raises(DatasetError, match="there is no folder .*nowhere; is the path right?"):
        load_dataset(tmp_path / "nowhere")


def test_an_empty_folder(tmp_path):
    with pytest.raises(DatasetError, match="is empty; give a folder with pictures"):
        load_dataset(tmp_path)


def test_a_folder_without_either_layout(tmp_path):
    draw(tmp_path / "a.png")
    with pytest.raises(
        DatasetError, match="has neither a labels.csv nor folders train/good and test/<label>; write"
    ):
        load_dataset(tmp_path)


def test_a_file_in_place_of_a_folder(tmp_path):
    with pytest.raises(DatasetError, match="a.png is a file; give the folder that holds the pictures"):
        load_dataset(draw(tmp_path / "a.png"))


def test_a_folder_of_several_sets(tmp_path):
    mvtec_set(tmp_path / "bottle")
    mvtec_set(tmp_path / "cable")
    with pytest.raises(
        DatasetError, match=r"holds several sets \(bottle, cable\); give one of these folders"
    ):
        load_dataset(tmp_path)


def test_one_folder_given_twice(tmp_path):
    root = mvtec_set(tmp_path / "weave")
    with pytest.raises(DatasetError, match="weave is given twice; give two different folders"):
        load_dataset(root, tmp_path / "." / "weave")


def test_a_label_that_two_folders_spell_differently(tmp_path):
    with pytest.raises(DatasetError, match="has the class 'crack' and .* has 'Crack'; spell them the same"):
        load_dataset(mvtec_set(tmp_path / "a"), mvtec_set(tmp_path / "b", label="Crack"))


def test_a_label_that_is_a_defect_here_and_healthy_there(tmp_path):
    first = table_set(tmp_path / "a", "image,label\na.png,plain\nb.png,good\n")
    second = table_set(tmp_path / "b", "image,label\na.png,plain\nb.png,tear\n")
    (second / "dataset.yaml").write_text("healthy: [plain]\n")
    with pytest.raises(
        DatasetError, match="'plain' is a defect in one of .* and healthy in the other; say in their"
    ):
        load_dataset(first, second)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("helthy: [good]\n", "dataset.yaml:1: no setting named helthy; did you mean healthy?"),
        ("title: x\nempty_mask: maybe\n", 'dataset.yaml:2: empty_mask is "maybe"; give'),
        ("domains: {original: [a]}\n", "dataset.yaml:1: domains.new is missing; add it"),
        ("schema: dataset/2\n", 'dataset.yaml:1: schema is "dataset/2"; give'),
        ("bit_depth: 40\n", "dataset.yaml:1: bit_depth is 40; give at most 16"),
    ],
)
def test_a_wrong_setting_of_the_set_names_file_and_line(tmp_path, said, sentence):
    root = table_set(tmp_path / "s", "image,label\na.png,tear\nb.png,good\n")
    (root / "dataset.yaml").write_text(said)
    with pytest.raises(ConfigError, match=sentence):
        load_dataset(root)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("healthy: [goood]\n", "calls 'goood' healthy, but no picture is labelled so; did you mean good?"),
        (
            "healthy: [good]\nignore: [good]\n",
            "has 'good' under healthy and under ignore; keep one of the two",
        ),
    ],
)
def test_labels_of_the_set_that_cannot_be_right(tmp_path, said, sentence):
    root = table_set(tmp_path / "s", "image,label\na.png,tear\nb.png,good\n")
    (root / "dataset.yaml").write_text(said)
    with pytest.raises(DatasetError, match=sentence):
        load_dataset(root)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("c.png,tear,1,2,3,4", "boxes.csv:2: image c.png is not in the set"),
        (
            "a.png,tear,1,2,x,4",
            "boxes.csv:2: a side of the box is no number; give xmin, ymin, xmax, ymax in pixels",
        ),
        (
            "a.png,tear,9,2,3,4",
            "boxes.csv:2: the box is 9, 2, 3, 4; give xmin below xmax and ymin below ymax",
        ),
    ],
)
def test_a_box_that_cannot_be_right(tmp_path, line, sentence):
    root = table_set(tmp_path / "s", "image,label\na.png,tear\nb.png,good\n")
    (root / "boxes.csv").write_text(f"image,class,xmin,ymin,xmax,ymax\n{line}\n")
    with pytest.raises(DatasetError, match=sentence):
        load_dataset(root)


# -- real sets


@pytest.mark.parametrize(
    ("name", "pictures", "masks", "classes"),
    [
        ("hazelnut_toy", 51, 17, 1),
        ("cookies", 85, 32, 1),
        ("mvtec_screw", 242, 61, 5),
        ("elpv_solar", 960, 0, 1),
        ("magnetic_tile", 474, 196, 5),
        ("neu_steel", 900, 450, 6),
        ("crack_asphalt_cfd", 118, 118, 1),
        ("crack_ceramic_tile", 100, 100, 1),
    ],
)
def test_every_real_set_at_hand_is_read(name, pictures, masks, classes):
    need(f"../shared/data/{name}", found=(SHARED / name).exists())
    data = load_dataset(SHARED / name)
    assert len(data.samples) == pictures
    assert sum(sample.mask is not None for sample in data.samples) == masks
    assert len(data.classes) == classes
    for sample in data.samples[:: max(1, pictures // 8)]:
        image = read_image(sample)
        mask = read_mask(sample, image.shape[:2], classes=data.classes)
        assert (mask is None) == (sample.mask is None)


def test_a_real_set_in_a_nested_folder_reads_the_same_without_its_table(tmp_path):
    need("../shared/data/mvtec_screw", found=(SHARED / "mvtec_screw").exists())
    (tmp_path / "screws").mkdir()
    (tmp_path / "screws" / "screw").symlink_to(SHARED / "mvtec_screw" / "screw")
    bare = load_dataset(tmp_path / "screws")
    told = load_dataset(SHARED / "mvtec_screw")
    assert [(f"screw/{s.image}", s.label, s.mask is None) for s in bare.samples] == [
        (s.image, s.label, s.mask is None) for s in told.samples
    ]


def test_opencv_finds_every_kind_of_file_that_the_layouts_look_for():
    from edge_sdk.quality.pictures import SUFFIXES

    assert all(cv2.haveImageWriter(f"a{suffix}") for suffix in SUFFIXES)
