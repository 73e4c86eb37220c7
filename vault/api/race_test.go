//go:build race

package api_test

// raceDetector says that this program has it, which takes many times the memory.
const raceDetector = true
