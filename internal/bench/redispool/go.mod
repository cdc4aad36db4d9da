module github.com/redis/go-redis/v9/redispool

go 1.26.0

require github.com/redis/go-redis/v9 v9.23.0

require go.uber.org/atomic v1.12.0 // indirect
