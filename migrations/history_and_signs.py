"""Give records from before what they lack: the SHA-256 of their history and, where signs are kept, of these.

Nothing else of a record changes: each file is checked to be the same text but for the added lines.
"""

import json
from pathlib import Path

from safetensors.torch import load_file

from trained_binarization.files import sha256, write_text
from trained_binarization.training.weights import SIGNS, state_sha256

for path in sorted(Path("results").rglob("record.json")):
    text = path.read_text(encoding="utf-8")
    before = json.loads(text)
    assert json.dumps(before, indent=2) + "\n" == text, path
    if "history_sha256" in before:
        continue
    after = {}
    for key, value in before.items():
        after[key] = value
        if key == "weights_sha256":
            if (signs := path.with_name(SIGNS)).exists():
                after["signs_sha256"] = state_sha256(load_file(signs))
            after["history_sha256"] = sha256(path.with_name("history.csv"))
    new = json.dumps(after, indent=2) + "\n"
    added = [line for line in new.splitlines() if "signs_sha256" in line or "history_sha256" in line]
    assert [line for line in new.splitlines() if line not in added] == text.splitlines(), path
    write_text(path, new)
    print(path)
