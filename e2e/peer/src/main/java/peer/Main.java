package peer;

import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.CloseOptions.GroupMembershipOperation;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;

/** Runs one of the example topologies in Kafka Streams until SIGTERM; prints READY when it has reached RUNNING. */
public final class Main {
    private static final Duration CLOSE_TIMEOUT = Duration.ofSeconds(60);

    private Main() {}

    public static void main(String[] arguments) throws InterruptedException {
        Options options;
        try {
            options = Options.parse(arguments);
        } catch (IllegalArgumentException e) {
            System.err.println(e.getMessage());
            System.exit(2);
            return;
        }
        Properties properties = properties(options);
        KafkaStreams streams = new KafkaStreams(
                Topologies.build(options.get("topology"), options.get("input"), options.get("output"))
                        .build(properties),
                properties);
        streams.setStateListener((now, before) -> {
            System.out.println("STATE " + now);
            if (now == KafkaStreams.State.RUNNING) {
                System.out.println("READY");
            }
        });
        streams.setUncaughtExceptionHandler(error -> {
            System.err.println("FAILED " + error);
            return StreamThreadExceptionResponse.REPLACE_THREAD;
        });
        CountDownLatch closed = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            boolean ended = streams.close(CloseOptions.groupMembershipOperation(GroupMembershipOperation.LEAVE_GROUP)
                    .withTimeout(CLOSE_TIMEOUT));
            System.out.println(ended ? "CLOSED" : "CLOSE TIMED OUT");
            closed.countDown();
        }));
        streams.start();
        closed.await();
    }

    private static Properties properties(Options options) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, options.get("application-id"));
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("bootstrap"));
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, options.get("guarantee"));
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, options.get("commit-interval-ms"));
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, options.get("threads"));
        properties.put(StreamsConfig.STATE_DIR_CONFIG, options.get("state-dir"));
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, options.get("cache-bytes"));
        properties.put("enable.transactional.statestores", options.get("transactional-stores"));
        if (Boolean.parseBoolean(options.get("keep-repartition-records"))) {
            properties.put(StreamsConfig.REPARTITION_PURGE_INTERVAL_MS_CONFIG, Long.MAX_VALUE);
        }
        properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, "1");
        properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        return properties;
    }
}
