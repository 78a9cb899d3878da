package peer;

import com.fasterxml.jackson.annotation.JsonPropertyOrder;

/** The values of the example topologies. */
final class Records {
    private Records() {}

    record Order(String orderId, String customerId, long amountInCents, String note, long submittedAt) {}

    @JsonPropertyOrder({"amountInCents", "customerId", "large", "orderId"})
    record Scored(String orderId, String customerId, long amountInCents, boolean large) {}

    @JsonPropertyOrder({"customerId", "decisionId", "exposure"})
    record Decision(String decisionId, String customerId, long exposure) {}
}
