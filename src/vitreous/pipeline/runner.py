"""Run one job in this process: its directory, lock, logs, markers, figures, and its entry in the pipeline."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vitreous.core.errors import InputError
from vitreous.data.graph import Status
from vitreous.io.failed import write_failed
from vitreous.io.relion_project import write_job
from vitreous.job import Context, Job, JobParameters, Outputs
from vitreous.pipeline.project import RECORD, Project, exit_marker, job_lock, set_marker
from vitreous.pipeline.record import (
    append_note,
    changed_parameters,
    describe_run,
    job_logs,
    versions,
    write_metrics,
    write_yaml,
)
from vitreous.pipeline.stop import JobFailed, Stopped, late_signal
from vitreous.runtime.progress import Sparingly
from vitreous.runtime.ranks import ALONE, RankLost, Ranks

log = logging.getLogger(__name__)
_FILE_ONLY = {"file_only": True}  # for run.log; a console has no room for it


@dataclass(frozen=True)
class JobRun:
    """A job that ended well: what it is, where it lies, what it left, what it took."""

    name: str
    directory: Path
    outputs: Outputs
    seconds: float
    peak_rss_gb: float


def run_job(
    project: Project,
    job: type[Job],
    params: JobParameters,
    *,
    directory: Path | None = None,
    resume: bool = False,
    step: str = "",
    on_success: Callable[[JobRun], object] | None = None,
    on_iteration: Callable[[Path], object] = lambda directory: None,
    meanwhile: Callable[[], object] = lambda: None,
) -> JobRun:
    """Run a job in a project; a new numbered directory unless one is given.

    resume: go on from what lies in the directory. step: the recipe's name for it. on_success: called before the job
    is marked as done (the job's report). on_iteration: called with the job's directory now and then while it iterates
    (the report so far). meanwhile: called once while ranks are at work on a queue (what on_success will need). Raises
    InputError (the user's fault), Stopped (a signal) or JobFailed (ours).
    """
    from vitreous.runtime import ranks
    from vitreous.runtime.launch import is_rank

    if not is_rank():
        return _run_first(project, job, params, directory, resume, step, on_success, on_iteration, ALONE)
    if not job.shared:
        what = f"a {job.name} job runs in one process"
        raise InputError("torchrun", what, "Start it without --ranks, torchrun or srun -n")
    with ranks.joined(queued=job.queued) as mine:
        if mine.is_first:
            mine = replace(mine, meanwhile=meanwhile)
            return _run_first(project, job, params, directory, resume, step, on_success, on_iteration, mine)
        logging.getLogger("vitreous").setLevel(logging.WARNING)  # the first rank tells what there is to tell
        return _run(project, job, params, mine.share(None), resume, step, mine)


def _run_first(
    project: Project,
    job: type[Job],
    params: JobParameters,
    directory: Path | None,
    resume: bool,
    step: str,
    on_success: Callable[[JobRun], object] | None,
    on_iteration: Callable[[Path], object],
    mine: Ranks,
) -> JobRun:
    """The job in this process, which alone (or first among ranks) keeps its directory and its entry in the pipeline."""
    from vitreous.runtime.launch import note_place

    place = directory if directory is not None else project.new_job(job)
    with job_lock(place), job_logs(place):
        mine.share(place)
        note_place(place)
        set_marker(place, "Running")
        reads = _files_read(project, params)
        project.mark(place, job, "Running", reads, {})
        try:
            result = _run(project, job, params, place, resume, step, mine, on_iteration)
            if on_success is not None:
                on_success(result)
        except BaseException as caught:
            # peers that stop as well end our collective with an error of its own
            error = late_signal() or _disk_full(caught, place) or caught
            status: Status = "Aborted" if isinstance(error, (Stopped, KeyboardInterrupt)) else "Failed"
            _log_end(job, error)
            set_marker(place, status)
            project.mark(place, job, status, reads, {})
            if isinstance(error, Exception) and not isinstance(error, InputError):
                raise JobFailed(job.name, place, error) from error
            raise error from None if error is not caught else error.__cause__
        set_marker(place, "Succeeded")
        project.mark(place, job, "Succeeded", reads, result.outputs.nodes)
    return result


def _run(
    project: Project,
    job: type[Job],
    params: JobParameters,
    place: Path,
    resume: bool,
    step: str,
    mine: Ranks,
    on_iteration: Callable[[Path], object] = lambda directory: None,
) -> JobRun:
    from vitreous.runtime import device, memory
    from vitreous.runtime.gpu_map import parse_gpu_map
    from vitreous.runtime.launch import local_ranks, place_in_map, placement

    memory.use_large_pages()
    memory.keep_freed_memory()
    if mine.heartbeat is not None:
        mine.heartbeat.log_to(place / f"rank{mine.rank:03d}.log")
    own = placement(params.gpu, params.threads)
    rank, ranks = place_in_map(len(parse_gpu_map(own.gpu)))
    chosen = device.resolve(own.gpu, cpu=params.cpu, rank=rank, ranks=ranks)
    context = Context(
        project=project.root,
        directory=place,
        device=chosen,
        threads=device.set_threads(own.threads, sharing=local_ranks()),
        seed=params.seed,
        memory=memory.budget(params.max_memory, chosen, free_gpu_mb=params.free_gpu_memory) // own.sharing,
        resume=resume,
        ranks=mine,
        iteration_done=Sparingly(lambda: on_iteration(place)),
    )
    with context.closing:
        if not mine.is_first:
            return JobRun(job.name, place, _serve(job, params, context), 0.0, 0.0)
        return _run_and_record(job, params, context, mine, step)


def _serve(job: type[Job], params: JobParameters, context: Context) -> Outputs:
    """The work of a rank that is not the first."""
    from vitreous.runtime.queue import Served

    try:
        return job().run(params, context)
    except Served:
        return Outputs()


def _run_and_record(job: type[Job], params: JobParameters, context: Context, mine: Ranks, step: str) -> JobRun:
    from vitreous.runtime import memory

    place, resume = context.directory, context.resume
    write_yaml(place / RECORD, describe_run(job, params, str(context.device), step))
    write_job(place / "job.star", job.relion_type, params.model_dump(mode="json"), is_continue=resume)
    append_note(place, job, params, resume)
    log.info("%s in %s%s", job.name, place, ", going on from what is there" if resume else "")
    if mine.size > 1:
        log.info("%d ranks share the work", mine.size)
    log.info("versions %s, seed %d, %d threads", versions(), params.seed, context.threads, extra=_FILE_ONLY)
    log.info("parameters that differ from their defaults: %s", changed_parameters(params), extra=_FILE_ONLY)
    memory.reset_peak_rss()
    start = time.monotonic()
    outputs = job().run(params, context)
    seconds = time.monotonic() - start
    peak = memory.peak_rss() / 1e9
    write_failed(place, [(one.item, one.reason) for one in outputs.quarantined])
    if outputs.quarantined:  # the job said each of them as it came
        log.warning("%d left out: failed.star and report.html say which and why", len(outputs.quarantined))
    if mine.heartbeat is not None:
        context.seconds["waiting_for_ranks_seconds"] = round(mine.heartbeat.waited, 3)
    outputs.metrics.update(context.seconds)
    if (on_device := memory.peak_on_device(context.device)) > 0:
        outputs.metrics["peak_device_gb"] = round(on_device / 1e9, 3)
    write_metrics(place, outputs, seconds, peak)
    log.info("%s: %s (%.1f s, at most %.2f GB)", job.name, outputs.summary or "done", seconds, peak)
    return JobRun(job.name, place, outputs, seconds, peak)


def _disk_full(error: BaseException, place: Path) -> InputError | None:
    """What the user can mend where a disk is full; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return InputError(error.filename or place, "the disk is full", "Make room; --continue goes on from there.")


def _log_end(job: type[Job], error: BaseException) -> None:
    if isinstance(error, InputError):
        log.error("%s: %s", job.name, error)
    elif isinstance(error, (Stopped, KeyboardInterrupt)):
        log.warning("%s: %s; --continue goes on from here", job.name, error or "stopped")
    elif isinstance(error, RankLost):
        log.error("%s: %s; --continue goes on from the last iteration", job.name, error)
    else:
        log.error("%s: our fault", job.name, exc_info=error)


def _files_read(project: Project, params: JobParameters) -> list[str]:
    """Parameters that name a file of the project, as the pipeline names it."""
    files: list[str] = []
    for value in params.model_dump(mode="json").values():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and one and "\0" not in one and len(one) < 4096:
                try:
                    files.append(str((project.root / one).resolve().relative_to(project.root)))
                except (ValueError, OSError):
                    continue
    return files


def is_finished(directory: Path) -> bool:
    """Whether the job in this directory ended well."""
    return exit_marker(directory) == "Succeeded"
