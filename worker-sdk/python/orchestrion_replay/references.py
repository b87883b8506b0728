"""How the input of a task names what tasks before it returned: `$task1.order.lines[0].sku`, `$task0.city`.

A candidate counts as a reference when its id is that of a finished task, when its id is `task` and digits, or when it is the
whole text; anything else, `$5.00` say, is text. Of the dollars in front of one that counts each pair is one dollar of text; a
last odd one makes the reference.

A text that is a reference and nothing else becomes the value, with its type. Others become text within the text.
"""

import json
import re
from decimal import Decimal

_FIELD = r"\.(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)"
_KEY = r'\["(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*"\]'
_INDEX = r"\[(?:0|[1-9][0-9]{0,8})\]"
_CANDIDATE = re.compile(rf"(\$+)([A-Za-z][A-Za-z0-9_-]*)((?:{_FIELD}|{_KEY})(?:{_FIELD}|{_KEY}|{_INDEX})*)")
_STEP = re.compile(rf"{_FIELD}|{_KEY}|{_INDEX}")
_NUMBERED = re.compile(r"task[0-9]+", re.IGNORECASE)
_ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class LeadsNowhere(Exception):
    """A reference has no value. Names where it stands, and what it says."""


class _NoValue(LeadsNowhere):
    """The task has returned something, but nothing under that path."""


class _Reference:
    def __init__(self, task, path):
        self.task = task
        self.path = path

    def __str__(self):
        return f"${self.task}{_display(self.path, dotted=True)}"


def resolve(task_input, constants, outputs):
    """The input of a task with every reference replaced. `outputs` holds what tasks returned, by task id."""
    resolved = {}
    for name, value in task_input.items():
        try:
            resolved[name] = _resolve(value, [name], constants, outputs)
        except _NoValue:
            # A member that is nothing but a reference is left out when there is no such value. Elsewhere it is an error.
            if not (isinstance(value, str) and _is_one_reference(_scan(value, outputs))):
                raise
    return resolved


def _resolve(value, at, constants, outputs):
    if isinstance(value, dict):
        return {name: _resolve(member, [*at, name], constants, outputs) for name, member in value.items()}
    if isinstance(value, list):
        return [_resolve(item, [*at, index], constants, outputs) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    pieces = _scan(value, outputs)
    if _is_one_reference(pieces):
        return _value_of(pieces[0], at, constants, outputs)
    # What a reference was replaced by is never scanned again: no value can smuggle in a reference.
    texts = (p if isinstance(p, str) else text_of(_value_of(p, at, constants, outputs)) for p in pieces)
    return "".join(texts)


def _is_one_reference(pieces):
    return len(pieces) == 1 and isinstance(pieces[0], _Reference)


def _scan(text, outputs):
    """A text as pieces: strings, and references."""
    pieces, plain, last = [], "", 0
    for found in _CANDIDATE.finditer(text):
        dollars, task, path = found.groups()
        plain += text[last : found.start()]
        last = found.end()
        is_task = task.lower() == "task0" or task in outputs or _NUMBERED.fullmatch(task)
        if not is_task and len(found[0]) < len(text):
            plain += found[0]
            continue
        plain += "$" * (len(dollars) // 2)
        if len(dollars) % 2 == 0:
            plain += task + path
            continue
        if plain:
            pieces.append(plain)
            plain = ""
        pieces.append(_Reference(task, [_step(step) for step in _STEP.findall(path)]))
    plain += text[last:]
    if plain or not pieces:
        pieces.append(plain)
    return pieces


def _step(text):
    """A member's name, or a position."""
    if text.startswith("."):
        return text[1:]
    return json.loads(text[1:-1])


def _value_of(reference, at, constants, outputs):
    written, where = str(reference), _display(at, dotted=False)
    if reference.task.lower() == "task0":
        value = constants
    elif reference.task in outputs:
        value = outputs[reference.task]
    else:
        raise LeadsNowhere(f"input `{where}`: `{written}` needs the output of `{reference.task}`, and there is none")
    for step in reference.path:
        if isinstance(value, dict) and isinstance(step, str) and step in value:
            value = value[step]
            continue
        # On an array a name may be a position: `$task1.lines.0`.
        position = int(step) if isinstance(step, int) or _ARRAY_INDEX.fullmatch(step) else None
        if isinstance(value, list) and position is not None and position < len(value):
            value = value[position]
            continue
        raise _NoValue(f"input `{where}`: `{written}` leads nowhere in the output of `{reference.task}`")
    return value


def _display(path, dotted):
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(_FIELD, f".{step}"):
            text += f".{step}" if dotted or text else step
        else:
            text += f"[{json.dumps(step, ensure_ascii=False)}]"
    return text


def text_of(value):
    """A value within a text: a string as it is, anything else as JSON without blanks."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, dict):
        members = (f"{json.dumps(name, ensure_ascii=False)}:{_json_text(member)}" for name, member in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_json_text(item) for item in value) + "]"
    return json.dumps(value)


def _json_text(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else text_of(value)


def _float_text(value):
    """The shortest text that reads as this number. The engine writes 0.00001 and 1e-7 where Python writes 1e-05 and 1e-07."""
    text = repr(value)
    return format(Decimal(text), "f") if text.endswith("e-05") else text.replace("e-0", "e-")
