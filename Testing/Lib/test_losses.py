"""Laws of the losses: agreement with MONAI, gradients, ignored voxels, half precision, deep supervision."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.losses import LOSSES, DeepSupervisionLoss, build_loss
from UNetSegmentationLib.losses.parts.deep_supervision import level_strides, reduce_labels
from UNetSegmentationLib.losses.parts.distance_map import signed_distance, squared_distance

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from monai import losses as monai_losses

SIZES = {2: (9, 7), 3: (6, 5, 7)}
VARIANTS = {
    "classes": {},
    "weights": {"class_weights": [0.5, 2.0, 1.0]},
    "regions": {"regions": [[1, 2], [2]], "class_weights": [1.0, 3.0]},
    "sigmoid": {"activation": "sigmoid"},
}


def draw(dimensions=3, *, batch=2, classes=3, seed=0, dtype=torch.float32, lowest=0):
    generator = torch.Generator().manual_seed(seed)
    size = SIZES[dimensions]
    logits = torch.randn((batch, classes, *size), generator=generator, dtype=dtype) * 2
    target = torch.randint(lowest, classes, (batch, *size), generator=generator)
    return logits, target


def value_and_gradient(loss, logits, target):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    return value, gradient


def monai_counterpart(name, options, factor=1.0):
    shared = {"softmax": True, "to_onehot_y": True}
    table = {
        "dice": lambda o: monai_losses.DiceLoss(
            include_background=o.get("include_background", False),
            batch=o.get("is_batch_wise", False),
            squared_pred=o.get("is_squared", False),
            **shared,
        ),
        "tversky": lambda o: monai_losses.TverskyLoss(
            include_background=o.get("include_background", False),
            batch=o.get("is_batch_wise", False),
            alpha=o.get("false_positive_weight", 0.3),
            beta=o.get("false_negative_weight", 0.7),
            **shared,
        ),
        "focal": lambda o: monai_losses.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=o.get("gamma", 2.0)),
        "cross_entropy": lambda o: lambda x, t: F.cross_entropy(x, t[:, 0], weight=torch.tensor(o["class_weights"])),
        "dice_cross_entropy": lambda o: monai_losses.DiceCELoss(
            include_background=False,
            lambda_dice=o.get("dice_weight", 1.0),
            lambda_ce=o.get("cross_entropy_weight", 1.0),
            **shared,
        ),
        "boundary": lambda o: monai_losses.BoundaryLoss(
            include_background=o.get("include_background", False), **shared
        ),
    }
    oracle = table[name](options)
    return lambda logits, target: factor * oracle(logits, target[:, None])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(
    ("name", "options", "factor"),
    [
        ("dice", {}, 1),
        ("dice", {"include_background": True, "is_batch_wise": True}, 1),
        ("dice", {"is_squared": True}, 1),
        ("tversky", {}, 1),
        ("tversky", {"false_positive_weight": 0.6, "false_negative_weight": 0.2, "is_batch_wise": True}, 1),
        ("focal", {}, 3),  # MONAI divides by the classes too
        ("focal", {"gamma": 3.5}, 3),
        ("cross_entropy", {"class_weights": [0.2, 1.0, 3.0]}, 1),
        ("dice_cross_entropy", {}, 1),
        ("dice_cross_entropy", {"dice_weight": 0.3, "cross_entropy_weight": 1.7}, 1),
        ("boundary", {}, 1),
        ("boundary", {"include_background": True}, 1),
    ],
)
def test_values_and_gradients_equal_monai(name, options, factor, dimensions):
    logits, target = draw(dimensions)
    ours = value_and_gradient(build_loss(name, options), logits, target)
    theirs = value_and_gradient(monai_counterpart(name, options, factor), logits, target)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_right_in_double_precision(name, variant):
    logits, target = draw(2, dtype=torch.float64, lowest=-1)
    loss = build_loss(name, VARIANTS[variant])
    logits, target = logits[..., :4, :3].clone().requires_grad_(), target[..., :4, :3]
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (logits,))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", LOSSES)
def test_all_ignored_gives_zero_and_no_gradient(name, variant):
    logits, target = draw(3)
    value, gradient = value_and_gradient(build_loss(name, VARIANTS[variant]), logits, torch.full_like(target, -1))
    assert value.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("label", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", LOSSES)
def test_one_label_and_extreme_logits_stay_finite(name, dtype, label):
    logits, target = draw(3)
    for scale in (1.0, 1000.0):
        value, gradient = value_and_gradient(
            build_loss(name), (logits * scale).to(dtype), torch.full_like(target, label)
        )
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_are_scored_in_float32_also_under_autocast(name, dtype, variant):
    logits, target = draw(3, lowest=-1)
    loss, halved = build_loss(name, VARIANTS[variant]), logits.to(dtype)
    expected, expected_gradient = value_and_gradient(loss, halved.float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(loss, halved, target)
    assert value.dtype == torch.float32
    assert value == expected
    torch.testing.assert_close(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "boundary"])
def test_ignored_voxels_have_no_influence(name, variant):
    logits, target = draw(3, lowest=-1)
    loss = build_loss(name, VARIANTS[variant])
    ignored = (target == -1).unsqueeze(1)
    value, gradient = value_and_gradient(loss, logits, target)
    assert loss(logits + 5 * ignored * torch.randn_like(logits), target).item() == pytest.approx(value.item(), abs=1e-6)
    assert not gradient[ignored.expand_as(gradient)].any()
    assert gradient.any()


@pytest.mark.parametrize("name", LOSSES)
def test_ignore_label_of_any_value_means_the_same(name):
    logits, target = draw(2, lowest=-1)
    renamed = torch.where(target == -1, 255, target)
    assert build_loss(name, {"ignore_label": 255})(logits, renamed) == build_loss(name)(logits, target)


@pytest.mark.parametrize("is_batch_wise", [False, True])
@pytest.mark.parametrize("name", ["dice", "tversky", "cross_entropy", "focal", "boundary"])
def test_a_wholly_ignored_image_does_not_dilute_the_batch(name, is_batch_wise):
    logits, target = draw(3, batch=3)
    target[1] = -1
    loss = build_loss(name, {"is_batch_wise": is_batch_wise} if name in ("dice", "tversky") else {})
    torch.testing.assert_close(loss(logits, target), loss(logits[[0, 2]], target[[0, 2]]))


@pytest.mark.parametrize("name", LOSSES)
def test_loss_knows_no_order_of_images_and_no_direction(name):
    logits, target = draw(3, lowest=-1)
    loss = build_loss(name)
    expected = loss(logits, target)
    torch.testing.assert_close(loss(logits.flip(0, 2, 4), target.flip(0, 1, 3)), expected)
    torch.testing.assert_close(loss(logits.transpose(2, 4), target.transpose(1, 3)), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_class_weights_change_nothing_and_a_zero_weight_removes_a_class(name):
    logits, target = draw(3)
    torch.testing.assert_close(
        build_loss(name, {"class_weights": [4.0] * 3})(logits, target), build_loss(name)(logits, target)
    )
    only_first = build_loss(name, {"class_weights": [0.0, 1.0, 0.0]})(logits, target)
    assert only_first != build_loss(name, {"class_weights": [0.0, 0.0, 1.0]})(logits, target)


@pytest.mark.parametrize("name", LOSSES)
def test_truth_is_the_best_prediction(name):
    _, target = draw(3)
    sure = F.one_hot(target, 3).movedim(-1, 1).float() * 40
    loss = build_loss(name)
    best = loss(sure, target).item()
    for swapped in ([1, 0, 2], [2, 1, 0], [0, 2, 1]):
        assert best < loss(sure[:, swapped], target).item()
    if name != "boundary":
        assert best == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["dice", "tversky", "cross_entropy", "focal"])
def test_regions_of_softmax_equal_sigmoids_of_their_log_odds(name):
    logits, target = draw(3, lowest=-1)
    regions = [[1, 2], [2]]
    probability = torch.stack([logits.softmax(1)[:, region].sum(1) for region in regions], 1).double()
    by_sigmoid = build_loss(name, {"regions": regions, "activation": "sigmoid"})(probability.logit(), target)
    assert build_loss(name, {"regions": regions})(logits, target).item() == pytest.approx(by_sigmoid.item(), rel=1e-5)


def test_two_classes_as_softmax_equal_one_region():
    logits, target = draw(3, classes=2)
    for name in ("dice", "tversky", "cross_entropy", "focal", "boundary"):
        torch.testing.assert_close(
            build_loss(name)(logits, target), build_loss(name, {"regions": [[1]]})(logits, target)
        )


def test_focal_without_gamma_is_cross_entropy_and_even_tversky_is_dice():
    logits, target = draw(3, lowest=-1)
    for options in VARIANTS.values():
        focal = build_loss("focal", {**options, "gamma": 0})(logits, target)
        torch.testing.assert_close(focal, build_loss("cross_entropy", options)(logits, target))
        even = {**options, "false_positive_weight": 0.5, "false_negative_weight": 0.5, "smooth": 1e-7}
        tversky = build_loss("tversky", even)(logits, target)
        torch.testing.assert_close(tversky, build_loss("dice", {**options, "smooth": 1e-7})(logits, target))


def test_weighted_sum_is_the_sum_of_its_table():
    logits, target = draw(3, lowest=-1)
    spacing = {"spacing_mm": [3.0, 1.0, 2.0]}
    table = {
        "class_weights": [1.0, 2.0, 3.0],
        "terms": [
            {"loss": "tversky", "weight": 0.7, "options": {"gamma": 2.0}},
            {"loss": "boundary", "weight": 0.01, "options": spacing},
        ],
    }
    shared = {"class_weights": [1.0, 2.0, 3.0]}
    tversky = build_loss("tversky", shared | {"gamma": 2.0})(logits, target)
    boundary = build_loss("boundary", shared | spacing)(logits, target)
    torch.testing.assert_close(build_loss("weighted_sum", table)(logits, target), 0.7 * tversky + 0.01 * boundary)


def test_boundary_loss_scales_with_the_spacing():
    logits, target = draw(3)
    single = build_loss("boundary", {"spacing_mm": [3.0, 1.0, 1.5]})(logits, target)
    double = build_loss("boundary", {"spacing_mm": [6.0, 2.0, 3.0]})(logits, target)
    torch.testing.assert_close(double, 2 * single)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 0.7, 1.2)])
def test_distance_maps_equal_scipy(spacing_mm):
    masks = np.random.default_rng(4).random((4, 9, 12, 7)) < np.array([0.02, 0.3, 0.8, 0.98])[:, None, None, None]
    squared = squared_distance(torch.from_numpy(masks), spacing_mm)
    for mask, ours in zip(masks, squared, strict=True):
        expected = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
        np.testing.assert_allclose(ours.sqrt().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_signed_distance_of_a_slab_is_the_distance_to_its_face():
    mask = torch.zeros(10, 4, dtype=torch.bool)
    mask[:3] = True
    expected = torch.tensor([-4.0, -2, 0, 2, 4, 6, 8, 10, 12, 14])[:, None].expand(10, 4)
    torch.testing.assert_close(signed_distance(mask, (2.0, 5.0)).clamp(min=-4), expected.clamp(min=-4) + 0.0)


@pytest.mark.parametrize("mask", [torch.zeros(4, 5, dtype=torch.bool), torch.ones(4, 5, dtype=torch.bool)])
def test_signed_distance_without_a_boundary_is_zero(mask):
    assert not signed_distance(mask, (1.0, 1.0)).any()


# Deep supervision


def test_deep_supervision_of_one_level_is_the_loss():
    logits, target = draw(3, lowest=-1)
    loss = build_loss("dice_cross_entropy")
    for outputs in (logits, [logits]):
        assert DeepSupervisionLoss(loss)(outputs, target) == loss(logits, target)


@pytest.mark.parametrize("size", [(16, 8), (8, 16, 8)])
def test_deep_supervision_is_the_normalised_sum_over_nearest_labels(size):
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(-1, 3, (2, *size), generator=generator)
    levels = [torch.randn((2, 3, *(s // 2**k for s in size)), generator=generator) for k in range(4)]
    loss = build_loss("cross_entropy")
    expected = torch.zeros(())
    for k, level in enumerate(levels):
        labels = F.interpolate(target[:, None].float(), level.shape[2:], mode="nearest-exact")[:, 0].long()
        expected = expected + loss(level, labels) * [8, 4, 2, 1][k] / 15
    torch.testing.assert_close(DeepSupervisionLoss(loss)(levels, target), expected)


def test_deep_supervision_equals_monai():
    logits, target = draw(3)
    levels = [logits[..., :4, :4, :4], logits[..., :2, :2, :2], logits[..., :1, :1, :1]]
    target = target[..., :4, :4, :4]
    oracle = monai_losses.DeepSupervisionLoss(
        monai_losses.DiceLoss(softmax=True, to_onehot_y=True, include_background=False)
    )
    expected = oracle(levels, target[:, None].float()) * 4 / 7  # MONAI leaves the weights unnormalised
    torch.testing.assert_close(DeepSupervisionLoss(build_loss("dice"))(levels, target), expected)


@pytest.mark.parametrize("size", [(50, 33), (17, 31), (64, 48), (23, 100)])
@pytest.mark.parametrize("is_padded", [False, True])
def test_strides_follow_from_sizes(size, is_padded):
    alignment = 16
    padded = [-(-n // alignment) * alignment for n in size]
    base = padded if is_padded else size
    sizes = [size, *([-(-n // s) for n in base] for s in (2, 4, 8, 16))]
    assert level_strides(size, sizes) == [(s, s) for s in (1, 2, 4, 8, 16)]
    if is_padded:
        assert level_strides(size, sizes, (16, 16)) == [(s, s) for s in (1, 2, 4, 8, 16)]


def test_alignment_tells_the_strides_of_an_image_much_smaller_than_its_padding():
    sizes = [(5, 8), (8, 8), (4, 4)]
    assert level_strides((5, 8), sizes, (16, 16)) == [(1, 1), (2, 2), (4, 4)]


@pytest.mark.parametrize("size", [(16, 12), (13, 9)])
def test_labels_shrink_to_the_middle_of_their_blocks(size):
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    small = reduce_labels((rows * 100 + columns)[None], (4, 2))
    for i in range(small.shape[1]):
        for j in range(small.shape[2]):
            assert small[0, i, j] == min(4 * i + 2, size[0] - 1) * 100 + min(2 * j + 1, size[1] - 1)
    assert small.shape[1:] == tuple(-(-n // s) for n, s in zip(size, (4, 2), strict=True))


def test_logits_in_the_padding_do_not_count():
    generator = torch.Generator().manual_seed(2)
    target = torch.randint(0, 3, (1, 5, 5), generator=generator)
    levels = [torch.randn((1, 3, n, n), generator=generator) for n in (5, 8, 4)]
    loss = DeepSupervisionLoss(build_loss("dice_cross_entropy"), alignment=(16, 16))
    expected = loss(levels, target)
    levels[1][..., 3:, :] *= -7
    levels[2][..., :, 2:] *= -7
    assert loss(levels, target) == expected
    levels[2][..., 1, 1] *= -7
    assert loss(levels, target) != expected


def test_every_level_gets_a_gradient():
    target = torch.randint(0, 3, (1, 16, 16), generator=torch.Generator().manual_seed(3))
    levels = [torch.zeros(1, 3, 16 >> k, 16 >> k, requires_grad=True) for k in range(5)]
    DeepSupervisionLoss(build_loss("cross_entropy"))(levels, target).backward()
    assert all(level.grad.any() for level in levels)


# Configuration and errors


@pytest.mark.parametrize("name", LOSSES)
def test_configuration_survives_json_and_hashes(name):
    config = LOSSES[name].Config(class_weights=(1.0, 2.0), regions=((1, 2), (2,)))
    restored = LOSSES[name].Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert restored == config
    assert hash(restored) == hash(config)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_has_no_weights_to_save(name):
    assert not build_loss(name, {"regions": [[1], [2]]}).state_dict()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dice", {"smoth": 1}, "no field smoth"),
        ("dice", {"smooth": 0}, "smooth is 0"),
        ("dice", {"class_weights": [-1.0, 1.0]}, "at least 0"),
        ("dice", {"class_weights": [0.0, 0.0]}, "all 0"),
        ("dice", {"class_weights": [float("nan")]}, "finite"),
        ("dice", {"regions": [[]]}, "has no label"),
        ("dice", {"regions": [[-1]]}, "negative label"),
        ("dice", {"regions": [[1]], "class_weights": [1.0, 1.0]}, "for 1 regions"),
        ("dice", {"activation": "tanh"}, "softmax or sigmoid"),
        ("tversky", {"false_positive_weight": -1.0}, "error weights"),
        ("tversky", {"gamma": 0.5}, "at least 1"),
        ("focal", {"gamma": 0.5}, "0 or at least 1"),
        ("boundary", {"spacing_mm": [1.0, 0.0, 1.0]}, "above 0"),
        ("dice_cross_entropy", {"dice_weight": 0.0, "cross_entropy_weight": 0.0}, "not both 0"),
        ("weighted_sum", {"terms": []}, "at least one loss"),
        ("weighted_sum", {"terms": [{"weight": 1.0}]}, "Term lacks loss"),
        (
            "weighted_sum",
            {"terms": [{"loss": "dice", "factor": 1.0}]},
            "Term has no field factor: choose from loss",
        ),
        ("weighted_sum", {"terms": [{"loss": "dice", "weight": 0.0}]}, "not all 0"),
        ("weighted_sum", {"terms": [{"loss": "dice", "options": {"ignore_label": 3}}]}, "set it once"),
        ("weighted_sum", {"terms": [{"loss": "dise"}]}, "unknown loss 'dise'"),
    ],
)
def test_wrong_options_are_named(name, options, words):
    with pytest.raises(InputError, match=words):
        build_loss(name, options)


@pytest.mark.parametrize(
    ("options", "shape", "label", "words"),
    [
        ({}, (2, 6, 5), 0, "do not fit logits"),
        ({}, (2, 6, 5, 7), 3, "0 to 2"),
        ({"ignore_label": None}, (2, 6, 5, 7), -1, "-1"),
        ({"class_weights": [1.0, 2.0]}, (2, 6, 5, 7), 0, "2 numbers for 3"),
        ({"regions": [[1], [3]]}, (2, 6, 5, 7), 0, "up to 3"),
        ({"regions": [[1], [2]], "activation": "sigmoid"}, (2, 6, 5, 7), 0, "for 2 regions"),
        ({"regions": [[0, 1, 2]]}, (2, 6, 5, 7), 0, "every class"),
    ],
)
def test_wrong_labels_are_named(options, shape, label, words):
    logits, _ = draw(3)
    with pytest.raises(InputError, match=words):
        build_loss("dice", options)(logits, torch.full(shape, label))


def test_labels_that_are_no_integers_are_named():
    logits, target = draw(3)
    with pytest.raises(InputError, match="must be integers"):
        build_loss("dice")(logits, target.float())


def test_spacing_must_fit_the_axes():
    logits, target = draw(3)
    with pytest.raises(InputError, match="for 3 axes"):
        build_loss("boundary", {"spacing_mm": [1.0, 1.0]})(logits, target)


def test_levels_without_a_stride_are_named():
    loss, target = DeepSupervisionLoss(build_loss("dice")), torch.zeros(1, 8, 8, dtype=torch.long)
    with pytest.raises(InputError, match="needs at least the logits"):
        loss([], target)
    with pytest.raises(InputError, match="not on the labels' grid"):
        loss([torch.zeros(1, 2, 4, 4)], target)
    with pytest.raises(InputError, match="do not cover"):
        DeepSupervisionLoss(build_loss("dice"), alignment=(8, 8))(
            [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 3, 3)], target
        )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_that_splits_is_the_mean_over_images(name, variant):
    logits, target = draw(batch=3, dtype=torch.float64)
    loss = build_loss(name, VARIANTS[variant])
    sets_classes_off = name in ("cross_entropy", "focal", "dice_cross_entropy", "weighted_sum")
    assert loss.splits(target) != (sets_classes_off and "class_weights" in VARIANTS[variant])
    if loss.splits(target):
        value, gradient = value_and_gradient(loss, logits, target)
        parts = [value_and_gradient(loss, logits[part], target[part]) for part in (slice(0, 2), slice(2, 3))]
        assert value.item() == pytest.approx((2 * parts[0][0].item() + parts[1][0].item()) / 3, rel=1e-12)
        scaled = torch.cat([parts[0][1] * 2 / 3, parts[1][1] / 3])
        torch.testing.assert_close(scaled, gradient, rtol=1e-10, atol=1e-14)
    target[0, 0, 0, 0] = -1
    assert not loss.splits(target)


def test_what_is_counted_over_the_batch_does_not_split():
    _, target = draw()
    assert not build_loss("dice", {"is_batch_wise": True}).splits(target)
    assert not build_loss("weighted_sum", {"terms": [{"loss": "tversky", "options": {"is_batch_wise": True}}]}).splits(
        target
    )
    assert not build_loss("dice_cross_entropy", {"ignore_label": 2}).splits(target)
    assert not build_loss("dice_cross_entropy", {"class_weights": [1.0, 2.0, 1.0]}).splits(target)
