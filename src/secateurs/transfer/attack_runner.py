"""Run the jobs of a benchmark, which can be interrupted and continued."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from secateurs._io.json_objects import BrokenJSONError, member
from secateurs._progress import Bar
from secateurs.results import Results, TransferRow, digest_of
from secateurs.transfer.attack_rows import ImageOrigin, ImageSubset, make_rows
from secateurs.transfer.attack_variants import NOISE, AttackVariant
from secateurs.transfer.batch import attack_batch, make_members
from secateurs.transfer.outcomes import Outcome
from secateurs.transfer.plan import AttackGroup, Job, noise_group
from secateurs.transfer.saved_images import SavedImages


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs jobs one after the other and stores their rows and progress.

    Attributes:
        origin: the origin of the images, for the rows.
        device: the device of the networks.
        results: the folder for rows and progress, None for none.
        bar: shows the progress.
    """

    origin: ImageOrigin
    device: torch.device
    results: Results[TransferRow] | None
    bar: Bar

    def run(
        self, jobs: Sequence[Job], part: ImageSubset, saved: SavedImages | None = None
    ) -> list[TransferRow]:
        """Run the jobs, or what is left of each.

        Returns:
            The rows of all jobs, also of those that were finished before.
        """
        finished = self._finished()
        rows: list[TransferRow] = []
        for job in jobs:
            key = (part.name, job.group.name, str(job.variant), job.seed)
            found = _complete(finished.get(key, []), job, part)
            if found:
                self.bar.skip(work(job, part))
            rows += found or self._run(job, part, saved)
        return rows

    def _finished(self) -> dict[tuple[Any, ...], list[TransferRow]]:
        """The rows on disk, by job."""
        found: dict[tuple[Any, ...], list[TransferRow]] = {}
        for row in self.results.rows() if self.results else []:
            key = (row.search_part, row.surrogates, row.variant, row.seed)
            found.setdefault(key, []).append(row)
        return found

    def _run(self, job: Job, part: ImageSubset, saved: SavedImages | None) -> list[TransferRow]:
        outcome = self._load(job, part)
        self.bar.skip(work(job, part) * outcome.seen // len(part.images))
        members = make_members(job)
        if members:
            outcome.achieved = sum(member.achieved for member in members) / len(members)
        while outcome.seen < len(part.images):
            start = outcome.seen
            batch, levels = attack_batch(
                job,
                members,
                part.images,
                start,
                part.protocol,
                device=self.device,
                advance=self.bar.advance,
            )
            if saved is not None:
                saved.save(job, start, levels)  # before the progress, which says it is done
            outcome.add(batch)
            self._save(job, part, outcome)
        rows = make_rows(job, part, outcome, self.origin, self.device)
        if self.results is not None:
            self.results.add_all(rows)
            self.results.clear_progress()
        return rows

    def _save(self, job: Job, part: ImageSubset, outcome: Outcome) -> None:
        if self.results is not None:
            progress = {"job": _key(job, part), "outcome": outcome.to_dict()}
            self.results.save_progress(progress)

    def _load(self, job: Job, part: ImageSubset) -> Outcome:
        """The saved outcome of this job; an empty one if another version or tool wrote it."""
        saved = (self.results.load_progress() if self.results else None) or {}
        if self.results is None or saved.get("job") != _key(job, part):
            return Outcome()
        try:
            outcome = Outcome.from_dict(member(saved, "outcome"))
            outcome.check(
                _steps(job, part),
                [network.name for network in job.group.scored],
                total=len(part.images),
                batch_size=part.protocol.batch_size,
                targeted=part.protocol.targeted,
            )
        except BrokenJSONError as error:
            self.results.distrust_progress(error)
            return Outcome()
        return outcome


def make_jobs(
    groups: Sequence[AttackGroup], variants: Sequence[AttackVariant], seeds: Sequence[int]
) -> list[Job]:
    """Every variant with every group and seed; noise once for each seed, since it needs no network.

    Seeds are the outermost loop, so that the rows of a seed that is finished compare all variants.
    """
    jobs: list[Job] = []
    for seed in seeds:
        if AttackVariant(recipe=NOISE) in variants:
            jobs.append(Job(noise_group(groups), AttackVariant(recipe=NOISE), seed))
        jobs += [
            Job(group, variant, seed)
            for group in groups
            for variant in variants
            if variant.recipe != NOISE
        ]
    return jobs


def work(job: Job, part: ImageSubset) -> int:
    """Image steps of a job, for the progress bar; noise takes one step."""
    return len(part.images) * (1 if job.variant.recipe == NOISE else part.protocol.steps)


def _key(job: Job, part: ImageSubset) -> str:
    """The name of a job in the progress file."""
    return f"{part.name} | {job.group.name} | {job.variant} | seed {job.seed}"


def _steps(job: Job, part: ImageSubset) -> list[int]:
    """The steps after which a job is scored; noise takes one."""
    return part.protocol.checkpoints[-1 if job.variant.recipe == NOISE else 0 :]


def _complete(rows: Sequence[TransferRow], job: Job, part: ImageSubset) -> list[TransferRow]:
    """The rows of a job in order, if all are finished and of these images; else none."""
    same = len(part.images), digest_of(part.images.names)
    found = {(row.step, row.target): row for row in rows if (row.count, row.images) == same}
    wanted = [
        (step, network.name) for step in sorted(_steps(job, part)) for network in job.group.scored
    ]
    return [found[key] for key in wanted] if all(key in found for key in wanted) else []
