package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/ceremony/script"
	"keyrite/internal/cli"
)

func newCeremonySchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the script language as JSON Schema, for editors",
		Long: `Print the JSON Schema (draft 2020-12) of the script language. With it an editor
completes members and verbs, shows what each is for, and marks what cannot be:

  keyrite ceremony schema > script.schema.json

and, as the first line of a script, for the YAML language server:

  # yaml-language-server: $schema=script.schema.json

The schema says what a script may look like; whether it is a good one, only
'keyrite ceremony lint' says.

Exit codes: 0 printed.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			schema, err := script.Schema()
			if err != nil {
				return err
			}
			res := struct {
				Schema string          `json:"schema"`
				JSON   json.RawMessage `json:"json_schema"`
			}{"keyrite/ceremony-schema/v1", schema}
			return cli.Print(c, res, func(w io.Writer) { fmt.Fprintf(w, "%s", schema) })
		},
	}
}
