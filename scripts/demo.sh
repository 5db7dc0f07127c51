#!/usr/bin/env bash
# Three runs in an environment of their own: the default one (REALM on generated questions), its
# baseline, and somebody's CSV of votes. Results go to runs/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
export HF_HUB_OFFLINE=1
annorun=".venv/bin/python -m annorun name=demo"

echo; echo "1. REALM: one reliable annotator, two that are nearly always wrong (the default run)"
$annorun
echo; echo "2. The same votes, each taken as true"
$annorun method=noisy
echo; echo "3. A CSV of votes: labels and reliabilities"
votes=runs/demo/votes.csv
cat > "$votes" <<'CSV'
task,worker,label
photo-1,ann,cat
photo-1,ben,cat
photo-1,cem,dog
photo-2,ann,dog
photo-2,ben,dog
photo-2,cem,dog
photo-3,ann,cat
photo-3,ben,cat
photo-3,cem,cat
photo-4,ann,dog
photo-4,cem,cat
photo-5,ben,dog
photo-5,ann,dog
CSV
$annorun dataset=table dataset.path="$votes"
cat runs/demo/dawid_skene-table-*/labels.csv
echo; echo "done; pictures: runs/demo/*/figure.png"
