from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vitreous.core.errors import InputError
from vitreous.pipeline.slurm import read_line
from vitreous.pipeline.slurm_script import Allocation, batch_script, filled, template_values

COMMAND = ["refine3d", "--i", "Extract/job007/particles.star", "--ref", "a map.mrc", "--o", "Refine3D/job012"]
WIDE = Allocation(4, 8, 8, 4, "2:00:00", "gpu", "200G", True, ("--account=em",))


def script(wants: Allocation) -> str:
    return batch_script("refine3d-job012", COMMAND, Path("/data/project"), "Refine3D/job012", wants, "/env/bin/python")


def is_bash(text: str) -> bool:
    return subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_a_script_over_several_nodes() -> None:
    text = script(WIDE)
    assert is_bash(text)
    options = {line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")}
    assert options >= {
        "--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=8", "--cpus-per-task=32", "--time=2:00:00",
        "--partition=gpu", "--mem=200G", "--requeue", "--account=em", "--signal=TERM@120", "--chdir=/data/project",
    }  # fmt: skip
    assert "--nnodes=4 --nproc-per-node=8" in text
    assert (
        "-m vitreous refine3d --i Extract/job007/particles.star --ref 'a map.mrc' --o Refine3D/job012 --continue"
        in text
    )
    assert "scontrol requeue" in text


@pytest.mark.parametrize(
    ("code", "there", "count", "goes_back"),
    [
        (1, "RELION_JOB_EXIT_ABORTED job.yaml", 9, True),
        (1, "RELION_JOB_EXIT_FAILURE job.yaml", 0, False),
        (0, "RELION_JOB_EXIT_SUCCESS job.yaml", 0, False),
        (143, "", 0, True),
        (1, "", 2, True),
        (1, "", 3, False),
    ],
)
def test_what_was_told_to_stop_goes_back_to_the_queue(
    tmp_path: Path, code: int, there: str, count: int, goes_back: bool
) -> None:
    """Run by bash, with other programs under SLURM's names. Stopped before it has begun: not for ever."""
    job = tmp_path / "Refine3D/job012"
    job.mkdir(parents=True)
    for name, words in (("srun", f"cd {job}; touch slurm.out {there}; exit {code}"), ("scontrol", 'echo "did $*"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{words}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(count)}
    done = subprocess.run(
        ["bash"], input=script(WIDE), env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert ("did requeue 7" in done.stdout) == goes_back


def test_one_process_needs_no_torchrun() -> None:
    text = script(Allocation(time="1:00:00"))
    assert is_bash(text)
    assert "torch" not in text
    assert "scontrol requeue" not in text
    assert "--no-requeue" in text


def test_ranks_that_take_items_are_not_tied_to_each_other() -> None:
    text = script(Allocation(2, 4, 4, 2, queued=True))
    assert is_bash(text)
    assert "torch" not in text
    assert "--ntasks-per-node=4" in text
    assert "--cpus-per-task=2" in text
    assert "srun --kill-on-bad-exit=0 --no-kill" in text


@pytest.mark.parametrize(
    ("wants", "words"),
    [
        (Allocation(time="2 hours"), "--time: cannot read '2 hours'"),
        (Allocation(gpus_per_node=4, ranks=6), "6 ranks a node cannot be spread evenly over 4 GPUs. Give 8"),
    ],
)
def test_what_slurm_would_misunderstand(wants: Allocation, words: str) -> None:
    with pytest.raises(InputError, match=words):
        wants.check()


def test_a_sites_template_in_relions_words() -> None:
    template = (
        "#!/bin/bash\n#SBATCH -p XXXqueueXXX -n XXXmpinodesXXX -c XXXthreadsXXX\nmodule load cuda\nXXXcommandXXX\n"
    )
    values = template_values("refine3d-job012", COMMAND, Path("/data"), "Refine3D/job012", WIDE, "python")
    text = filled(template, values, Path("site.sh"))
    assert is_bash(text)
    assert "#SBATCH -p gpu -n 32 -c 4\nmodule load cuda\n" in text
    assert "torch.distributed.run" in text
    with pytest.raises(InputError, match="XXXextra1XXX has no value"):
        filled("XXXcommandXXX XXXextra1XXX", values, Path("site.sh"))
    with pytest.raises(InputError, match="has no XXXcommandXXX"):
        filled("XXXnameXXX", values, Path("site.sh"))


@pytest.mark.parametrize(
    ("line", "state", "text"),
    [
        ("12|PENDING|Resources|0:00|2:00:00|", "PENDING", "queued: waits until nodes are free (Resources)"),
        ("12|RUNNING|None|0:12|2:00:00|n[1-2]", "RUNNING", "running for 0:12 of 2:00:00 on n[1-2]"),
        ("12|TIMEOUT|TimeLimit|2:00|2:00|n1", "TIMEOUT", "timeout (TimeLimit)"),
    ],
)
def test_lines_of_the_queue(line: str, state: str, text: str) -> None:
    found = read_line(line)
    assert found is not None
    assert (found.number, found.state, found.text) == (12, state, text)
    assert read_line("slurm_load_jobs error: Invalid job id specified") is None
