// Package ceremonies holds the ceremony scripts that keyrite ships, as the text
// that 'keyrite ceremony new' writes. It holds no code.
package ceremonies

import _ "embed"

// Genesis founds a vault. The words between @ signs are filled in by
// 'keyrite ceremony new genesis'.
//
//go:embed genesis.yaml
var Genesis string
