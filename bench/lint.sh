# Sourced by scripts/bench: parsing and linting a ceremony script of 200 steps with
# planned contingencies, against reading the same file as YAML. Goal: under 1 s.
CGO_ENABLED=0 go build -o "$WORK/lintscript" ./bench/lintscript
read -r lint_yaml lint_lint lint_steps < <("$WORK/lintscript")
ratio lint.to_yaml "$(awk -v a="$lint_lint" -v b="$lint_yaml" 'BEGIN {print a / b}')"
raw lint.ms "$lint_lint" "ms for $lint_steps steps, goal: under 1000"
raw lint.yaml_ms "$lint_yaml" "ms for reading the same file as YAML"
