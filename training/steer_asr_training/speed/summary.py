"""From what was measured to what is said: medians, ratios within rounds, and Markdown."""

from __future__ import annotations

from statistics import median
from typing import Any

from steer_asr_training.speed.environments import OURS

CLOCKS = {"frames_per_s": "by the wall clock", "frames_per_cpu_s": "by processor time"}
LOSS_MARGIN = 1.02
"""Losses count as the same up to this factor."""


def summary(contenders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each kind and clock: ours against every peer, and whether the loss is no worse than the fastest's."""
    found = []
    for mine in (contender for contender in contenders if contender["name"] == OURS):
        peers = [peer for peer in contenders if peer["kind"] == mine["kind"] and peer["name"] != OURS]
        for clock in CLOCKS:
            ratios = {peer["name"]: _ratios(mine, peer, clock) for peer in peers}
            record: dict[str, Any] = {"kind": mine["kind"], "clock": clock, "ratios": ratios}
            if peers:
                fastest = max(peers, key=lambda peer: _median(peer, clock))
                record |= {
                    "fastest": fastest["name"],
                    "times_the_fastest": ratios[fastest["name"]]["median"],
                    "loss_no_worse": mine["long"]["fvu"] <= LOSS_MARGIN * fastest["long"]["fvu"],
                }
            found.append(record)
    return found


def _ratios(mine: dict[str, Any], peer: dict[str, Any], clock: str) -> dict[str, float]:
    """Ours over theirs, round by round."""
    each = [a[clock] / b[clock] for a, b in zip(mine["rounds"], peer["rounds"], strict=True)]
    return {"median": median(each), "min": min(each), "max": max(each)}


def _median(contender: dict[str, Any], name: str) -> float:
    return median(measured[name] for measured in contender["rounds"])


def markdown(result: dict[str, Any], command: str) -> str:
    """The result as a page."""
    settings, machine = result["settings"], result["machine"]
    shape = f"{settings['d_sae']} features, k {settings['k']}, batches of {settings['batch']} frames"
    lines = [
        "# Training speed",
        "",
        f"`{command}`",
        "",
        f"{shape}, width {settings['d_in']}; {settings['rounds']} rounds of {settings['steps']} steps, "
        f"{settings['warmup']} of them before the clock counts, in which contenders take turns; then one run of "
        f"{settings['loss_steps']} steps each for the loss. Learning rate {settings['lr']:g}, falling to zero. "
        f"Activations: {result['activations']}.",
        "",
        f"{machine.get('gpu') or machine['processor']}, {machine['threads']} of {machine['cores']} cores, PyTorch "
        f"{machine['torch']}. Load of the machine before: {machine['load_before']}.",
        "",
        *_contenders(result),
        "",
        *_ratio_table(result["summary"]),
    ]
    if result["scaling"]:
        lines += ["", *_scaling(result)]
    return "\n".join([*lines, "", *_roofline(result["roofline"]), "", *_environments(result["environments"]), ""])


def _contenders(result: dict[str, Any]) -> list[str]:
    lines = [
        "| library | kind | frames / s | range | frames / CPU s | MSE | FVU | L0 | peak MB | of it training |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for contender in result["contenders"]:
        speeds = [measured["frames_per_s"] for measured in contender["rounds"]]
        cells = [
            contender["name"],
            contender["kind"],
            f"{median(speeds):.0f}",
            f"{min(speeds):.0f} to {max(speeds):.0f}",
            f"{_median(contender, 'frames_per_cpu_s'):.0f}",
            f"{contender['long']['mse']:.4f}",
            f"{contender['long']['fvu']:.4f}",
            f"{contender['long']['l0']:.1f}",
            f"{_median(contender, 'peak_mb'):.0f}",
            f"{_median(contender, 'training_mb'):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "MSE per element and FVU (fraction of variance unexplained) are of the same held-out frames, after the same "
        "number of frames, measured by one function. Peak memory is of the whole process, libraries and data included.",
    ]


def _ratio_table(summary: list[dict[str, Any]]) -> list[str]:
    lines = ["| kind | clock | ours against | times as fast | range over rounds |", "| --- | --- | --- | ---: | ---: |"]
    for record in summary:
        for name, ratio in record["ratios"].items():
            mark = " (fastest)" if name == record["fastest"] else ""
            spread = f"{ratio['min']:.2f} to {ratio['max']:.2f}"
            clock = CLOCKS[record["clock"]]
            lines.append(f"| {record['kind']} | {clock} | {name}{mark} | {ratio['median']:.2f} | {spread} |")
    return lines if len(lines) > 2 else ["No peer was measured."]


def _scaling(result: dict[str, Any]) -> list[str]:
    settings = result["settings"]
    lines = [
        f"Ours, {settings['kinds'][0]}, by size of the dictionary; dense: products and gradients of the full matrix, "
        "sparse: of the kept activations.",
        "",
        "| features | dense, ms per step | sparse, ms per step | times as fast | dense, peak MB | sparse, peak MB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["scaling"]:
        dense, sparse = row["dense"], row["sparse"]
        cells = [f"{row['d_sae']}", f"{dense['ms_per_step']:.0f}", f"{sparse['ms_per_step']:.0f}"]
        cells += [f"{dense['ms_per_step'] / sparse['ms_per_step']:.1f}"]
        cells += [f"{dense['peak_mb']:.0f}", f"{sparse['peak_mb']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _roofline(found: dict[str, Any]) -> list[str]:
    if "skipped" in found:
        return [f"Share of the roofline: not given ({found['skipped']})."]
    lines = [
        f"{found['gpu']}: {found['tf32_tflops']:g} TFLOP/s in TF32, {found['bf16_tflops']:g} in bfloat16 (published). "
        "A step counts as six dense products, whatever is computed.",
        "",
        "| library | kind | TFLOP/s | share of TF32 | share of bfloat16 |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    return lines + [
        f"| {share['name']} | {share['kind']} | {share['tflops']:.1f} | {share['share_of_tf32']:.1%} | "
        f"{share['share_of_bf16']:.1%} |"
        for share in found["shares"]
    ]


def _environments(environments: dict[str, dict[str, str]]) -> list[str]:
    return [
        f"- {name}: {', '.join(f'{package} {version}' for package, version in found.items())}"
        for name, found in environments.items()
    ]
