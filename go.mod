module keyrite

go 1.26
