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
                    f"{record['program']}: {collective['kind']} of {collective['dtype']}{list(collective['dims'])} over "
                    f"{', '.join(collective['axes'])}, {_giga(collective['bytes'])}: {collective['suspicion']} "
                    f"({collective['place']})"
                )
        lines += [
            f"{record['program']}: not known and not counted in full: {what}" for what in record.get("unknown", ())
        ]
    return lines


def markdown(budget: dict) -> str:
    """A file that --json wrote, as a table of Markdown with a line on what it is of."""
    config, records = budget["config"], budget["programs"]
    sampling, sft = config["grpo"]["sampling"], config["sft"]
    rows = config["grpo"]["packing"], sampling["prompts"] * sampling["group_size"] // config["grpo"]["mini_batches"]
    sizes = lambda mesh: " x ".join(f"{axis}={size}" for axis, size in mesh.items() if size != 1) or "one chip"
    meshes = {record["program"]: sizes(record["mesh"]) for record in records}
    places = {place: [p for p in meshes if meshes[p] == place] for place in dict.fromkeys(meshes.values())}
    lines = [
        f"{config['topology']}; " + "; ".join(f"{', '.join(names)} on `{place}`" for place, names in places.items())
        + f". GRPO: {rows[1]} completions an update in {config['grpo']['micro_batches']} micro-batches (packing {rows[0]}), "
        f"prompts of {sampling['prompt_slots']}, completions of {sampling['max_new_tokens']} tokens; scoring: "
        f"{sampling['prompts'] * sampling['group_size']} of them; SFT: {sft['batch_size']} rows of "
        f"{sft['sequence_length']} in {sft['micro_batches']}; prefill: {sampling['prompts']} prompts, "
        f"{sampling['prefill_rows']} at a time; decode: {sampling['slots']} slots, cache {sampling['cache_dtype']}.",
        "",
    ]  # fmt: skip
    table = table_rows(records)
    lines += ["| " + " | ".join(row) + " |" for row in table[:1]] + ["|" + "---|" * len(HEADS)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in table[1:]] + notes(records)) + "\n"
