#!/bin/sh
# The README's pictures, docs/images/report.png and timeline.png, of a run: pictures.sh RUN
# The run is best one of the README's first command on a quiet machine. Needs Chromium (scripts/screenshot.sh) and Python.
set -eu
if [ $# -ne 1 ]; then
    echo "usage: $0 RUN" >&2
    exit 2
fi
run=$(realpath "$1")
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cargo run --quiet --release -- report "$run" --out "$folder/page.html" --images 0
# The page's head and the sections named, and nothing else.
part() {
    python3 - "$folder/page.html" "$folder/part.html" "$@" <<'PYTHON'
import re
import sys

page, part, *wanted = sys.argv[1:]
html = open(page).read()
sections = re.findall(r'<section id="([^"]+)">.*?</section>\s*', html, flags=re.S)
for name in set(sections) - set(wanted):
    html = re.sub(rf'<section id="{name}">.*?</section>\s*', "", html, flags=re.S)
if "head" not in wanted:
    html = re.sub(r"<header>.*?</header>", "", html, flags=re.S)
html = re.sub(r"<nav>.*?</nav>|<footer>.*?</footer>", "", html, flags=re.S)
open(part, "w").write(html)
PYTHON
}
part head curves
scripts/screenshot.sh "$folder/part.html" docs/images/report.png 1000 600
part timeline
scripts/screenshot.sh "$folder/part.html" docs/images/timeline.png 1000 375
