import pytest
from oatflow.components import number_format as room
from oatflow.components.number_format import computes_fast_in_bfloat16, number_format

INTEL = "vendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx2 avx512f {}\n"
AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 {}\n"
ARM = "CPU implementer\t: 0x41\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("cpuinfo", "fast"),
    [
        (INTEL.format(""), False),
        (INTEL.format("avx512_bf16"), False),
        (INTEL.format("avx512_bf16 amx_bf16 amx_tile"), True),
        (AMD.format(""), False),
        (AMD.format("avx512_bf16"), True),
        (ARM.format(""), False),
        (ARM.format("i8mm bf16"), True),
        ("", False),
    ],
)
def test_bfloat16_is_taken_where_the_processor_gains_from_it(monkeypatch, cpuinfo, fast):
    assert computes_fast_in_bfloat16(cpuinfo) is fast
    monkeypatch.setattr(room, "_read_cpuinfo", lambda: cpuinfo)
    assert number_format("auto", gpu=False) == ("bfloat16" if fast else "float32")
    assert number_format("auto", gpu=True) == "bfloat16"


def test_a_format_that_is_asked_for_is_taken(monkeypatch):
    monkeypatch.setattr(room, "_read_cpuinfo", lambda: "")
    assert number_format("bfloat16", gpu=False) == "bfloat16"
    assert number_format("float32", gpu=True) == "float32"
