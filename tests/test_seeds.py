from oatflow.components.seeds import derive


def test_the_same_parts_give_the_same_seed():
    assert derive(0, 3, "p1", "sample") == derive(0, 3, "p1", "sample")


def test_every_part_matters_and_so_do_their_borders_and_types():
    seeds = {
        derive(0, "ab", "c"),
        derive(0, "a", "bc"),
        derive(1, "ab", "c"),
        derive(0, "ab"),
        derive(0, 1),
        derive(0, "1"),
    }
    assert len(seeds) == 6


def test_seeds_fit_where_signed_integers_are_wanted():
    assert all(0 <= derive(n, "x") < 2**63 for n in range(1000))


def test_seeds_do_not_change_between_versions():
    # Worked out with hashlib by hand: len + "int:0", len + "int:3", len + "str:sample".
    assert derive(0, 3, "sample") == 5052458528641309039
