from tumorseg_train.evaluation.cases import choose
from tumorseg_train.evaluation.metrics import ImageScore


def score(name: str, dice_percent: int, truth: int = 100, marked: int = 100) -> ImageScore:
    both = dice_percent * (truth + marked) // 200
    return ImageScore(name, truth, marked, both, 1000, 1, 1, 1, 0.0, float("nan"))


def names(scores: list[ImageScore]) -> list[str]:
    return [each.image for each in scores]


def test_worst_median_and_best() -> None:
    scores = [score(f"d{percent:03}", percent) for percent in (90, 10, 50, 30, 70, 20, 80, 60, 40)]
    chosen = choose(scores, 2)
    assert names(chosen["worst"]) == ["d010", "d020"]
    assert names(chosen["median"]) == ["d040", "d050"]
    assert names(chosen["best"]) == ["d090", "d080"]
    assert chosen["false positives"] == []


def test_no_image_is_shown_twice() -> None:
    for count in range(8):
        scores = [score(f"s{i}", 10 * i) for i in range(count)]
        shown = [name for each in choose(scores, 4).values() for name in names(each)]
        assert len(shown) == len(set(shown))
    assert names(choose([score("only", 50)], 4)["worst"]) == ["only"]


def test_of_equal_misses_the_largest_comes_first() -> None:
    scores = [score("a small", 0, truth=10), score("b large", 0, truth=90), score("good", 90)]
    assert names(choose(scores, 1)["worst"]) == ["b large"]


def test_false_alarms_by_their_area() -> None:
    healthy = [score(name, 0, truth=0, marked=n) for name, n in (("few", 3), ("none", 0), ("many", 50))]
    assert names(choose(healthy, 4)["false positives"]) == ["many", "few"]
