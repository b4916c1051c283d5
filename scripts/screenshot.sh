#!/bin/sh
# A picture of a page as Chromium draws it: screenshot.sh PAGE.html OUT.png [WIDTH [HEIGHT [dark]]]
# HEIGHT is to be as high as the page; what is left over is the page's ground.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: $0 PAGE.html OUT.png [WIDTH [HEIGHT [dark]]]" >&2
    exit 2
fi
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || {
    echo "no Chromium found; on Debian: apt-get install chromium" >&2
    exit 1
}
page=$(realpath "$1")
width=${3:-1200}
height=${4:-4000}
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
# 0 is dark, 1 is light: what the page's prefers-color-scheme sees.
scheme=1
[ "${5:-}" = dark ] && scheme=0
# A window is never narrower than 500 pixels, so a narrower page is shown in a frame of that width.
if [ "$width" -lt 500 ]; then
    printf '<style>body{margin:0}iframe{border:0;display:block}</style><iframe src="file://%s" width="%s" height="%s"></iframe>' \
        "$page" "$width" "$height" >"$profile/frame.html"
    page="$profile/frame.html"
fi
"$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile/browser" \
    --allow-file-access-from-files --blink-settings=preferredColorScheme=$scheme \
    --window-size="$width,$height" --screenshot="$2" "file://$page" >"$profile/log" 2>&1 || {
    cat "$profile/log" >&2
    exit 1
}
