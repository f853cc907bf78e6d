"""Figures of compiled programs as tables."""

HEADS = (
    "program", "compile", "arguments", "temporaries", "outputs", "code", "resident", "headroom", "TFLOP", "HBM", "ICI",
    "compute s", "HBM s", "ICI s", "MFU bound",
)  # fmt: skip


def _giga(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def table_rows(records: list[dict]) -> list[tuple[str, ...]]:
    """Heads, and the cells of each record of `record_measures`."""
    rows = [HEADS]
    for record in records:
        row = [record["program"], f"{record['compile_seconds']:.0f} s"]
        if "bytes" not in record:
            rows.append((*row, record["failure"], *[""] * (len(HEADS) - 3)))
            continue
        sizes, times = record["bytes"], record["seconds"]
        row += [_giga(sizes[kind]) for kind in ("arguments", "temporaries", "outputs", "code", "resident")]
        row += [f"{record['headroom']:.0%}", f"{record['flops'] / 1e12:.1f}"]
        row += [_giga(record["hbm_bytes"]), _giga(record["collective_bytes"])]
        row += [f"{times[name]:.3g}{'*' if name == record['binding'] else ''}" for name in ("compute", "hbm", "ici")]
        rows.append((*row, f"{record['mfu_bound']:.1%}" if record["model_flops"] else "-"))
    return rows


def notes(records: list[dict]) -> list[str]:
    """What was not counted in full, and collectives that should not be there."""
    lines = []
    for record in records:
        for collective in record.get("collectives", ()):
            if collective["suspicion"]:
                lines.append(
                    f"{record['program']}: {collective['kind']} of {collective['dtype']}{list(collective['dims'])} "
                    f"over {', '.join(collective['axes'])}, {_giga(collective['bytes'])}: {collective['suspicion']} "
                    f"({collective['place']})"
                )
        lines += [
            f"{record['program']}: not known and not counted in full: {what}" for what in record.get("unknown", ())
        ]
    return lines


def markdown(budget: dict) -> str:
    """A file that --json wrote, as a table of Markdown with a line on what it is of."""
    config, records = budget["config"], budget["programs"]
    shown = lambda mesh: " x ".join(f"{axis}={size}" for axis, size in mesh.items() if size != 1) or "one chip"
    sizes = _sizes(config)
    what = [f"{r['program']} on `{shown(r['mesh'])}`" + sizes.get(r["program"], "") for r in records]
    heads, *rows = table_rows(records)
    line = lambda row: "| " + " | ".join(row) + " |"
    table = [line(heads), "|" + "---|" * len(HEADS), *map(line, rows)]
    return (
        "\n".join([f"{config['topology']}: {'; '.join(what)}.", "", *table, *[f"\n{note}" for note in notes(records)]])
        + "\n"
    )


def _sizes(config: dict) -> dict[str, str]:
    """What each program works on."""
    grpo, sampling, sft = config["grpo"], config["grpo"]["sampling"], config["sft"]
    completions = sampling["prompts"] * sampling["group_size"]
    update, parts = completions // grpo["mini_batches"], grpo["micro_batches"]
    tokens = f"{sampling['prompt_slots']} + {sampling['max_new_tokens']} tokens"
    width = sampling["prompt_slots"] + sampling["max_new_tokens"]
    return {
        "sft": f", {sft['batch_size']} rows of {sft['sequence_length']} tokens, micro-batches {sft['micro_batches']}",
        "grpo": f", {update} completions of {tokens}, micro-batches {parts}, packing {grpo['packing']}",
        "score": f", {completions} completions, {update // parts} at a time",
        "prefill": f", {sampling['prompts']} prompts of {sampling['prompt_slots']}, "
        f"{sampling['prefill_rows']} at a time",
        "decode": f", {sampling['slots']} slots of {width}, cache {sampling['cache_dtype']}, {sampling['steps']} steps",
    }
