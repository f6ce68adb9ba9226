#!/bin/sh
# Makes the runs of docs/experiments.md and prints the rows of its tables.
#
#   sh docs/experiments.sh runs DATA OUT    make every run that is not there yet, one after the other
#   sh docs/experiments.sh tables OUT       print a row for each kind of run: means over the seeds that are there
#
# DATA holds tinyshakespeare.txt, python-stdlib.train.txt and python-stdlib.valid.txt. A run lies in OUT/TEXT/SEED/NAME.
# One that was interrupted is made anew, because its clock would be that of two processes. FORETOKEN is the program
# (foretoken), ONLY a pattern of the runs to make (all): ONLY='shake/[23]/*'. The tables need jq.
set -eu
foretoken=${FORETOKEN:-foretoken}

# make TEXT SEED NAME FLAGS...
make() {
    text=$1 seed=$2 run=$out/$1/$2/$3
    case $text/$seed/$3 in ${ONLY:-*}) ;; *) return 0 ;; esac
    shift 3
    [ "$text" = shake ] || set -- --valid "$out/py.valid.txt" "$@"
    if ! grep -qs '"event":"done"' "$run/metrics.jsonl"; then
        rm -rf "$run"
        mkdir -p "${run%/*}"
        $foretoken train --data "$out/$text.txt" --preset tiny --steps 732 --batch 16 --eval-every 122 --log-every 61 \
            --valid-tokens all --seed "$seed" --threads 1 --out "$run" "$@"
    fi
    if [ "${run##*/}" != k0 ] && [ ! -e "$run/agreement.json" ]; then
        $foretoken eval "$run" --data "$out/$text.held.txt" --agreement --prompts 20 --prompt-tokens 48 --max-tokens 80 \
            --threads 1 --json >"$run/agreement.part"
        mv "$run/agreement.part" "$run/agreement.json"
    fi
}

runs() {
    data=$1 out=$2
    # Whole texts are in place before a run reads them, also where two of these scripts share a folder.
    text() { [ -e "$out/$1" ] || { cat >"$out/$1.$$" && mv "$out/$1.$$" "$out/$1"; }; }
    mkdir -p "$out"
    text shake.txt <"$data/tinyshakespeare.txt"
    tail -c 111540 "$data/tinyshakespeare.txt" | text shake.held.txt
    text py.txt <"$data/python-stdlib.train.txt"
    head -c 110000 "$data/python-stdlib.valid.txt" | text py.valid.txt
    head -c 400000 "$data/python-stdlib.valid.txt" | tail -c 200000 | text py.held.txt
    for seed in 1 2 3; do
        for text in shake py; do
            make $text $seed k0 --heads 0
            make $text $seed k3-joint --heads 3
            for regime in curriculum detached; do
                make $text $seed k3-$regime --heads 3 --regime $regime
            done
            # Of these the second and third seed were made on one text only.
            [ $seed = 1 ] || [ $text = shake ] || continue
            make $text $seed k1-joint --heads 1
            make $text $seed k3-reverse --heads 3 --regime reverse
        done
    done
    make py 1 kind-recursive --heads 3 --head-kind recursive --head-width 64
    make py 1 kind-sequential --heads 3 --head-kind sequential --head-width 32
    make py 1 kind-parallel --heads 3 --head-kind parallel --head-width 32
    make py 1 kind-medusa --heads 3 --head-kind medusa --head-width 100
    make py 1 width-128 --heads 3 --head-width 128
}

# What a run says, as one object. "Equal time" T is the mean time of the runs without heads, and the loss at T lies on the
# straight line between the evaluations before and after it.
figures='
[.[] | select(.event == "eval")] as $e | ($e | last) as $done
| ([$e[] | select(.training_seconds <= $t)] | last // $e[0]) as $a
| ([$e[] | select(.training_seconds > $t)] | first // $a) as $b
| ($b.training_seconds - $a.training_seconds) as $span
| ($agreement[0].agreement // {agreement_by_depth: [], fixed: []}) as $g
| ($g.fixed | last // {accepted_by_depth: [], drafted_by_depth: []}) as $most
| { $name, main: $done.loss, time: ($done.training_seconds / $t), heads: $done.loss_heads[1:],
    equal: (if $name == "k0" then $done.loss elif $span == 0 then $a.loss
        else $a.loss + ($b.loss - $a.loss) * ([$t - $a.training_seconds, 0] | max) / $span end),
    agreement: $g.agreement_by_depth, tokens: [$g.fixed[].tokens_per_step],
    accepted: [$most.accepted_by_depth, $most.drafted_by_depth] | transpose | map(.[0] / .[1]) }'

# Rows of a text: means over seeds, and the range of the main loss.
rows='
def digits(n): pow(10; n) as $p | . * $p | round / $p;
def mean: add / length;
def means(n): transpose | map(mean | digits(n) | tostring) | join(" ");
group_by(.name)[]
| "| \(.[0].name) | \(length) | \(map(.main) | mean | digits(3))"
    + (if length > 1 then map(.main) | " (\(min | digits(3)) to \(max | digits(3)))" else "" end)
    + " | \(map(.equal) | mean | digits(3)) | \(map(.time) | mean | digits(2)) | \(map(.heads) | means(3))"
    + " | \(map(.agreement) | means(2)) | \(map(.accepted) | means(2)) | \(map(.tokens) | means(2)) |"'

tables() {
    out=$1
    for text in shake py; do
        t=$(cat "$out/$text"/*/k0/metrics.jsonl |
            jq -s '[.[] | select(.event == "eval" and .step == 732).training_seconds] | add / length')
        echo "$text: $t s without heads"
        echo '| run | seeds | main loss | at equal time | time | loss of heads | agreement | accepted | tokens a step |'
        for metrics in "$out/$text"/*/*/metrics.jsonl; do
            run=${metrics%/*}
            grep -qs '"event":"done"' "$metrics" || continue
            agreement=$run/agreement.json
            [ -e "$agreement" ] || agreement=/dev/null
            jq -s --arg name "${run##*/}" --argjson t "$t" --slurpfile agreement "$agreement" "$figures" "$metrics"
        done | jq -rs "$rows"
    done
}

case ${1-}/$# in
runs/3) runs "$2" "$3" ;;
tables/2) tables "$2" ;;
*) echo "usage: sh docs/experiments.sh runs DATA OUT, or: sh docs/experiments.sh tables OUT" >&2 && exit 2 ;;
esac
