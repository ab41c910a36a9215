#!/usr/bin/env python3
"""Checks the documentation, offline: tests/docs/check.py [ROOT]

In every Markdown file of the repository: relative links and images lead to a file, and anchors to a heading. In the book
(docs/src): links stay inside the book, since a built book holds nothing else; files named as `code` exist; every page is in
SUMMARY.md. Every metric of src/metrics.rs is in docs/src/monitoring.md. Messages that the runbook quotes are in the code.
README.md is short.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../.."))
BOOK = "docs/src"
SUMMARY = f"{BOOK}/SUMMARY.md"
README_LINES_MAX = 120
FENCE = re.compile(r"^(```|~~~)")
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s+(\S+)", re.M)
HTML = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=\"([^\"]+)\"")
CODE = re.compile(r"`([^`\n]+)`")

problems = []


def report(path, what):
    problems.append(f"{path}: {what}")


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def markdown_files():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, check=True, capture_output=True, text=True)
    return sorted(path for path in listed.stdout.splitlines() if os.path.exists(os.path.join(ROOT, path)))


def without_fences(text):
    """The text with fenced and indented code blanked out, line by line."""
    lines, fenced, before_blank = [], False, True
    for line in text.splitlines():
        if FENCE.match(line.strip()):
            fenced = not fenced
            lines.append("")
        elif fenced or (line.startswith("    ") and before_blank):
            lines.append("")
            continue
        else:
            lines.append(line)
        before_blank = line.strip() == "" or fenced
    return "\n".join(lines)


def anchors(path):
    """The anchors of a file's headings, as GitHub and mdBook make them."""
    found, seen = set(), {}
    for line in without_fences(read(path)).splitlines():
        heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
        if not heading:
            continue
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = seen.get(slug, 0)
        seen[slug] = number + 1
        found.add(slug if number == 0 else f"{slug}-{number}")
    return found


def check_link(path, target):
    if re.match(r"[a-z][a-z0-9+.-]*:", target):
        return
    file, _, anchor = target.partition("#")
    where = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
    if not os.path.exists(os.path.join(ROOT, where)):
        report(path, f"the link {target} leads nowhere")
    elif path.startswith(BOOK + "/") and not where.startswith(BOOK + "/"):
        report(path, f"the link {target} leaves the book: name the file as `code` instead")
    elif anchor and where.endswith(".md") and anchor not in anchors(where):
        report(path, f"{where} has no heading for #{anchor}")


def check_named_files(path, text):
    tops = {name for name in os.listdir(ROOT) if os.path.isdir(os.path.join(ROOT, name)) and name not in ("target", "data")}
    for named in CODE.findall(text):
        is_path = re.fullmatch(r"[\w.-]+/[\w./-]*", named) and named.split("/")[0] in tops
        is_file = re.fullmatch(r"[A-Z]+\.md|docker-compose\.yml|\.env\.example", named)
        if (is_path or is_file) and not os.path.exists(os.path.join(ROOT, named)):
            report(path, f"`{named}` is no file of the repository")


def check_quotes(path):
    """Each message in double quotes is one that the code has; words in capitals stand for what it fills in."""
    code = ""
    for folder, _, names in os.walk(os.path.join(ROOT, "src")):
        for name in names:
            if name.endswith(".rs"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    code += re.sub(r"\\\n\s*", "", file.read())
    prose = re.sub(r"`[^`]*`", "", without_fences(read(path)))
    for message in re.findall(r'"([^"]+)"', prose):
        for part in re.split(r"\b[A-Z]+\b", re.sub(r"\s+", " ", message)):
            if len(part.split()) > 1 and part.strip() not in code:
                report(path, f'no message of the code has "{part.strip()}"')


def main():
    files = markdown_files()
    for path in files:
        text = without_fences(read(path))
        prose = re.sub(r"`[^`\n]*`", "", text)
        for target in LINK.findall(prose) + REFERENCE.findall(prose) + HTML.findall(prose):
            check_link(path, target)
        if path.startswith(BOOK + "/") or path == "README.md":
            check_named_files(path, text)

    pages = {path for path in files if path.startswith(BOOK + "/")} - {SUMMARY}
    listed = {os.path.normpath(os.path.join(BOOK, target)) for target in LINK.findall(read(SUMMARY))}
    for page in sorted(pages - listed):
        report(SUMMARY, f"{page} is missing")

    check_quotes("ops/RUNBOOK.md")

    monitoring = read(f"{BOOK}/monitoring.md")
    for metric in sorted(set(re.findall(r"\"wattgate_(\w+)\"", read("src/metrics.rs")))):
        if f"`{metric}`" not in monitoring:
            report(f"{BOOK}/monitoring.md", f"the metric wattgate_{metric} is missing")

    lines = read("README.md").count("\n")
    if lines > README_LINES_MAX:
        report("README.md", f"it has {lines} lines, and at most {README_LINES_MAX} are wanted")

    for problem in problems:
        print(problem)
    print(f"{len(files)} Markdown files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
