package peer;

import java.util.function.ToLongFunction;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;
import peer.Records.Decision;
import peer.Records.Order;
import peer.Records.Scored;

/** The example topologies, as a Kafka Streams application would write them. */
final class Topologies {
    private static final Serde<String> STRING = Serdes.String();
    private static final Serde<Long> LONG = Serdes.Long();
    private static final Serde<Order> ORDER = Json.of(Order.class);

    private Topologies() {}

    static StreamsBuilder build(String name, String input, String output) {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, Order> orders = builder.stream(
                input,
                Consumed.with(STRING, ORDER)
                        .withTimestampExtractor((record, partitionTime) -> ((Order) record.value()).submittedAt()));
        switch (name) {
            case "orders-risk" -> ordersRisk(orders, output);
            case "keyed-aggregate" -> decide(
                    orders.groupByKey(Grouped.with(STRING, ORDER)), Order::amountInCents, output);
            case "stateless" -> stateless(orders, output);
            default -> throw new IllegalArgumentException("unknown topology " + name);
        }
        return builder;
    }

    /** Only the amount travels through the repartition topic, as in StreamApp's plan of the same topology. */
    private static void ordersRisk(KStream<String, Order> orders, String output) {
        decide(
                orders.map((key, order) -> KeyValue.pair(order.customerId(), order.amountInCents()))
                        .groupByKey(Grouped.with("exposure-by-customer", STRING, LONG)),
                Long::longValue,
                output);
    }

    private static <V> void decide(KGroupedStream<String, V> grouped, ToLongFunction<V> amount, String output) {
        grouped.aggregate(
                        () -> 0L,
                        (customer, value, exposure) -> Math.addExact(exposure, amount.applyAsLong(value)),
                        // By name, which makes a timestamped store: with Stores.persistentKeyValueStore results would
                        // carry the last record's timestamp instead of the largest.
                        Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("exposure-by-customer")
                                .withKeySerde(STRING)
                                .withValueSerde(LONG))
                .toStream()
                .filter((customer, exposure) -> exposure >= 1_000_000)
                .mapValues((customer, exposure) ->
                        new Decision("risk-exposure:" + customer + ":" + exposure, customer, exposure))
                .to(output, Produced.with(STRING, Json.of(Decision.class)));
    }

    private static void stateless(KStream<String, Order> orders, String output) {
        orders.filter((key, order) -> order.amountInCents() >= 10_000)
                .mapValues(order -> new Scored(
                        order.orderId(), order.customerId(), order.amountInCents(), order.amountInCents() > 50_000))
                .to(output, Produced.with(STRING, Json.of(Scored.class)));
    }
}
