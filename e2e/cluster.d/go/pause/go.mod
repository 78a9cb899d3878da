module streamapp.test/cluster/pause

go 1.26.0
