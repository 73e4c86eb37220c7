//go:build race

package node

// raceSlows is by how much the race detector slows this program down.
const raceSlows = 5
